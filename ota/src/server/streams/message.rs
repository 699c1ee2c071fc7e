//! What a device says on `$aws/things/<thing>/streams/<stream>/…` and what it is answered: AWS IoT's
//! MQTT-based file delivery, in JSON and in CBOR, with its one-letter fields.

use ciborium::Value;
use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};

use crate::server::Message;

/// Smallest and largest block (AWS IoT: 256 B to 128 KiB).
pub(super) const BLOCK_BYTES: std::ops::RangeInclusive<u64> = 256..=131_072;
/// Most bytes sent for one request; the device asks again for the rest.
pub(super) const ANSWER_BYTES: u64 = 131_072;
/// Most blocks asked for, and the furthest offset in blocks.
pub(super) const MAX_BLOCKS: u64 = 98_304;
/// Most bytes of a bitmap: one bit for each block.
const BITMAP_BYTES: usize = 12_288;
/// Longest client token.
const TOKEN_BYTES: usize = 64;
/// Most bytes of a request: a bitmap in hex, and the rest. What is longer is not even queued.
pub(super) const REQUEST_BYTES: usize = 32 * 1024;
/// How deep a request may nest; it is one map.
const DEPTH: usize = 4;

/// How payloads are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Cbor,
}

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    InvalidTopic,
    InvalidJson,
    InvalidCbor,
    InvalidRequest,
    Unauthorized,
    BlockSizeOutOfBounds,
    OffsetOutOfBounds,
    BlockCountLimitExceeded,
    BlockBitmapLimitExceeded,
    ResourceNotFound,
    VersionMismatch,
    InternalError,
    /// Not one of AWS IoT's, which says nothing of it on this topic; the name is that of jobs.
    RequestThrottled,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: Code,
    pub(super) message: String,
}

pub(super) fn refuse<T>(code: Code, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal {
        code,
        message: message.into(),
    })
}

/// The parts of a streams topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place<'t> {
    pub(super) thing: &'t str,
    pub(super) stream: &'t str,
    pub(super) verb: &'t str,
    pub(super) format: Format,
}

/// A request as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) token: Option<String>,
    pub(super) what: Ask,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Describe,
    Get(Get),
}

/// Which blocks of which file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Get {
    pub(super) version: Option<u64>,
    pub(super) file: u8,
    /// Bytes of a block.
    pub(super) block: u64,
    /// The first block.
    pub(super) offset: u64,
    /// How many.
    pub(super) count: Option<u64>,
    /// Which of those from the offset on; the least bit of the first byte is the first block.
    pub(super) bitmap: Option<Vec<u8>>,
}

/// Whether a topic is one of streams.
pub(in crate::server) fn is_ours(topic: &str) -> bool {
    place(topic).is_some()
}

pub(super) fn place(topic: &str) -> Option<Place<'_>> {
    let mut parts = topic.strip_prefix("$aws/things/")?.split('/');
    let (thing, "streams") = (parts.next()?, parts.next()?) else {
        return None;
    };
    let (stream, verb, format) = (parts.next()?, parts.next()?, parts.next()?);
    let format = match format {
        "json" => Format::Json,
        "cbor" => Format::Cbor,
        _ => return None,
    };
    parts.next().is_none().then_some(Place {
        thing,
        stream,
        verb,
        format,
    })
}

/// Reads a request; the token as far as it can be read, for the refusal.
pub(super) fn read(place: &Place<'_>, payload: &[u8]) -> (Option<String>, Result<Asked, Refusal>) {
    let fields = match fields(place.format, payload) {
        Ok(fields) => fields,
        Err(refusal) => return (None, Err(refusal)),
    };
    let token = match text(&fields, "c") {
        Ok(Some(token)) if token.len() > TOKEN_BYTES => {
            let words = format!("the client token `c` has more than {TOKEN_BYTES} bytes");
            return (None, refuse(Code::InvalidRequest, words));
        }
        Ok(token) => token,
        Err(refusal) => return (None, Err(refusal)),
    };
    let what = match place.verb {
        "describe" => Ok(Ask::Describe),
        "get" => get(place.format, &fields).map(Ask::Get),
        _ => refuse(
            Code::InvalidTopic,
            "streams are asked to describe or to get",
        ),
    };
    let asked = what.map(|what| Asked {
        token: token.clone(),
        what,
    });
    (token, asked)
}

type Fields = Vec<(Value, Value)>;

fn fields(format: Format, payload: &[u8]) -> Result<Fields, Refusal> {
    if payload.len() > REQUEST_BYTES {
        let words = format!("the request has more than {REQUEST_BYTES} bytes");
        return refuse(Code::InvalidRequest, words);
    }
    let value = match format {
        Format::Json if payload.is_empty() => return Ok(Fields::new()),
        Format::Json => serde_json::from_slice::<Value>(payload).or_else(|error| {
            refuse(
                Code::InvalidJson,
                format!("the request is not JSON: {error}"),
            )
        })?,
        Format::Cbor => {
            let mut rest = payload;
            let read = ciborium::de::from_reader_with_recursion_limit(&mut rest, DEPTH);
            match read {
                Ok(value) if rest.is_empty() => value,
                _ => return refuse(Code::InvalidCbor, "the request is not one item of CBOR"),
            }
        }
    };
    match value {
        Value::Map(fields) => Ok(fields),
        _ => refuse(Code::InvalidRequest, "the request is not a map"),
    }
}

fn field<'f>(fields: &'f Fields, name: &str) -> Option<&'f Value> {
    let found = fields.iter().find(|(key, _)| key.as_text() == Some(name));
    found
        .map(|(_, value)| value)
        .filter(|value| !value.is_null())
}

fn text(fields: &Fields, name: &str) -> Result<Option<String>, Refusal> {
    match field(fields, name) {
        None => Ok(None),
        Some(Value::Text(text)) => Ok(Some(text.clone())),
        Some(_) => refuse(Code::InvalidRequest, format!("`{name}` is not text")),
    }
}

fn number(fields: &Fields, name: &str) -> Result<Option<u64>, Refusal> {
    match field(fields, name) {
        None => Ok(None),
        Some(Value::Integer(number)) => match u64::try_from(*number) {
            Ok(number) => Ok(Some(number)),
            Err(_) => refuse(Code::InvalidRequest, format!("`{name}` is below 0")),
        },
        Some(_) => refuse(
            Code::InvalidRequest,
            format!("`{name}` is not a whole number"),
        ),
    }
}

fn bitmap(format: Format, fields: &Fields) -> Result<Option<Vec<u8>>, Refusal> {
    let bytes = match (format, field(fields, "b")) {
        (_, None) => return Ok(None),
        (Format::Cbor, Some(Value::Bytes(bytes))) => bytes.clone(),
        (Format::Json, Some(Value::Text(hex))) => {
            let digits = hex.strip_prefix("0x").unwrap_or(hex);
            match HEXLOWER_PERMISSIVE.decode(digits.as_bytes()) {
                Ok(bytes) => bytes,
                Err(_) => return refuse(Code::InvalidRequest, "`b` is not hexadecimal"),
            }
        }
        _ => return refuse(Code::InvalidRequest, "`b` is not a bitmap"),
    };
    if bytes.len() > BITMAP_BYTES {
        let words = format!(
            "`b` has {} bytes; at most {BITMAP_BYTES} are possible",
            bytes.len()
        );
        return refuse(Code::BlockBitmapLimitExceeded, words);
    }
    Ok(Some(bytes))
}

fn get(format: Format, fields: &Fields) -> Result<Get, Refusal> {
    let (Some(file), Some(block)) = (number(fields, "f")?, number(fields, "l")?) else {
        return refuse(
            Code::InvalidRequest,
            "`f` (file) and `l` (block size) are needed",
        );
    };
    let Ok(file) = u8::try_from(file) else {
        return refuse(Code::InvalidRequest, "`f` is 0 to 255");
    };
    if !BLOCK_BYTES.contains(&block) {
        let words = format!("`l` is {} to {}", BLOCK_BYTES.start(), BLOCK_BYTES.end());
        return refuse(Code::BlockSizeOutOfBounds, words);
    }
    let offset = number(fields, "o")?.unwrap_or(0);
    if offset > MAX_BLOCKS {
        return refuse(Code::OffsetOutOfBounds, format!("`o` is 0 to {MAX_BLOCKS}"));
    }
    let count = number(fields, "n")?;
    if count.is_some_and(|count| count > MAX_BLOCKS) {
        return refuse(
            Code::BlockCountLimitExceeded,
            format!("`n` is 0 to {MAX_BLOCKS}"),
        );
    }
    Ok(Get {
        version: number(fields, "s")?,
        file,
        block,
        offset,
        count,
        bitmap: bitmap(format, fields)?,
    })
}

impl Get {
    /// The blocks to send of a file with `size` bytes, in order: as many as fit one answer.
    pub(super) fn blocks(&self, size: u64) -> Result<Vec<u64>, Refusal> {
        let end = size.div_ceil(self.block);
        if self.offset >= end.max(1) {
            let words = format!(
                "`o` is past the file: it has {end} blocks of {} bytes",
                self.block
            );
            return refuse(Code::OffsetOutOfBounds, words);
        }
        let most = usize::try_from((ANSWER_BYTES / self.block).max(1)).unwrap_or(1);
        let most = most.min(self.count.map_or(usize::MAX, |count| {
            usize::try_from(count).unwrap_or(usize::MAX)
        }));
        let is_wanted = |block: &u64| match &self.bitmap {
            None => true,
            Some(bitmap) => {
                let bit = block - self.offset;
                let byte = usize::try_from(bit / 8).ok().and_then(|at| bitmap.get(at));
                byte.is_some_and(|byte| byte & (1 << (bit % 8)) != 0)
            }
        };
        Ok((self.offset..end).filter(is_wanted).take(most).collect())
    }
}

/// A file of a stream as a device sees it.
pub(super) struct Described {
    pub(super) file: u8,
    pub(super) size: u64,
}

/// Writes answers.
pub(super) struct Answers<'p> {
    pub(super) place: &'p Place<'p>,
    pub(super) token: Option<String>,
}

impl Answers<'_> {
    fn message(&self, ending: &str, mut fields: Vec<(&str, Value)>) -> Message {
        let Place {
            thing,
            stream,
            format,
            ..
        } = self.place;
        if let Some(token) = &self.token {
            fields.insert(0, ("c", token.as_str().into()));
        }
        let fields = fields.into_iter().map(|(key, value)| (key.into(), value));
        let map = Value::Map(fields.collect());
        let mut payload = Vec::new();
        // A map of plain values in memory: neither can fail.
        let format = match format {
            Format::Json => {
                payload = serde_json::to_vec(&map).unwrap_or_default();
                "json"
            }
            Format::Cbor => {
                let _ = ciborium::into_writer(&map, &mut payload);
                "cbor"
            }
        };
        Message {
            topic: format!("$aws/things/{thing}/streams/{stream}/{ending}/{format}"),
            payload,
        }
    }

    pub(super) fn description(
        &self,
        version: u64,
        text: Option<&str>,
        files: &[Described],
    ) -> Message {
        let file = |one: &Described| {
            Value::Map(vec![
                ("f".into(), u64::from(one.file).into()),
                ("z".into(), one.size.into()),
            ])
        };
        let files = Value::Array(files.iter().map(file).collect());
        let mut fields = vec![("s", version.into())];
        fields.extend(text.map(|text| ("d", text.into())));
        fields.push(("r", files));
        self.message("description", fields)
    }

    pub(super) fn data(&self, get: &Get, block: u64, bytes: Vec<u8>) -> Message {
        // Of a file's last block its own: devices hold it against what is left of the file.
        let length = bytes.len() as u64;
        let payload = match self.place.format {
            Format::Json => BASE64.encode(&bytes).into(),
            Format::Cbor => Value::Bytes(bytes),
        };
        let fields = vec![
            ("f", u64::from(get.file).into()),
            ("l", length.into()),
            ("i", block.into()),
            ("p", payload),
        ];
        self.message("data", fields)
    }

    pub(super) fn rejected(&self, refusal: &Refusal) -> Message {
        let code = format!("{:?}", refusal.code);
        let message = refusal.message.as_str().into();
        self.message("rejected", vec![("o", code.into()), ("m", message)])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn json_get(body: serde_json::Value) -> Result<Get, Refusal> {
        let place = place("$aws/things/lamp/streams/s/get/json").unwrap();
        match read(&place, body.to_string().as_bytes()).1?.what {
            Ask::Get(get) => Ok(get),
            Ask::Describe => unreachable!(),
        }
    }

    fn code(body: serde_json::Value) -> Code {
        json_get(body).unwrap_err().code
    }

    #[test]
    fn topics_have_five_parts() {
        let found = place("$aws/things/lamp-1/streams/s1/get/cbor").unwrap();
        assert_eq!(
            (found.thing, found.stream, found.verb, found.format),
            ("lamp-1", "s1", "get", Format::Cbor)
        );
        for other in [
            "$aws/things/lamp/streams/s/get",
            "$aws/things/lamp/streams/s/get/xml",
            "$aws/things/lamp/jobs/get",
            "$aws/things/lamp/streams/s/get/json/x",
        ] {
            assert!(!is_ours(other), "{other}");
        }
    }

    #[test]
    fn a_bitmap_counts_from_the_least_bit() {
        // The example of the developer guide.
        for bitmap in ["130080", "0x130080"] {
            let get = json_get(json!({"f": 0, "l": 4096, "o": 2, "b": bitmap})).unwrap();
            assert_eq!(get.blocks(4096 * 100).unwrap(), [2, 3, 6, 25]);
            assert_eq!(
                get.blocks(4096 * 5).unwrap(),
                [2, 3],
                "past the end there is nothing"
            );
        }
        let one = json_get(json!({"f": 0, "l": 4096, "o": 2, "n": 3, "b": "130080"})).unwrap();
        assert_eq!(one.blocks(4096 * 100).unwrap(), [2, 3, 6]);
    }

    #[test]
    fn an_answer_has_128_kib_at_most() {
        let blocks = |body| json_get(body).unwrap().blocks(1 << 20).unwrap();
        assert_eq!(blocks(json!({"f": 0, "l": 32_768, "n": 5})), [0, 1, 2, 3]);
        assert_eq!(blocks(json!({"f": 0, "l": 131_072, "o": 7})), [7]);
        assert_eq!(blocks(json!({"f": 0, "l": 65_536, "o": 15, "n": 9})), [15]);
        assert_eq!(
            blocks(json!({"f": 0, "l": 65_536, "n": 0})),
            Vec::<u64>::new()
        );
    }

    #[test]
    fn what_is_out_of_bounds_has_its_code() {
        let at = |key: &str, value: serde_json::Value| {
            let mut body = json!({"f": 0, "l": 256});
            body[key] = value;
            body
        };
        assert_eq!(code(at("l", json!(255))), Code::BlockSizeOutOfBounds);
        assert_eq!(code(at("l", json!(131_073))), Code::BlockSizeOutOfBounds);
        assert_eq!(code(at("o", json!(98_305))), Code::OffsetOutOfBounds);
        assert_eq!(code(at("n", json!(98_305))), Code::BlockCountLimitExceeded);
        let bitmap = |bytes: usize| json!("00".repeat(bytes));
        assert_eq!(
            code(at("b", bitmap(12_289))),
            Code::BlockBitmapLimitExceeded
        );
        assert_eq!(
            code(at("b", bitmap(17_000))),
            Code::InvalidRequest,
            "more than is read"
        );
        assert_eq!(code(at("b", json!("xyz"))), Code::InvalidRequest);
        assert_eq!(code(at("f", json!(256))), Code::InvalidRequest);
        assert_eq!(code(at("f", json!(-1))), Code::InvalidRequest);
        assert_eq!(code(at("f", json!(1.5))), Code::InvalidRequest);
        assert_eq!(code(json!({"l": 256})), Code::InvalidRequest);
        assert_eq!(code(json!([])), Code::InvalidRequest);
        let get = json_get(at("o", json!(4))).unwrap();
        assert_eq!(get.blocks(1024).unwrap_err().code, Code::OffsetOutOfBounds);
        let place = place("$aws/things/lamp/streams/s/get/cbor").unwrap();
        let read = |payload: &[u8]| read(&place, payload).1.unwrap_err().code;
        assert_eq!(read(b"{"), Code::InvalidCbor);
        assert_eq!(read(&[0xa0, 0]), Code::InvalidCbor, "more than one item");
        assert_eq!(read(&[0x81; 100]), Code::InvalidCbor, "nested for ever");
        let mut bitmap = Vec::new();
        let long = Value::Map(vec![
            ("f".into(), 0.into()),
            ("l".into(), 256.into()),
            ("b".into(), Value::Bytes(vec![0; 12_289])),
        ]);
        ciborium::into_writer(&long, &mut bitmap).unwrap();
        assert_eq!(read(&bitmap), Code::BlockBitmapLimitExceeded);
    }

    proptest! {
        #[test]
        fn no_request_panics(payload in prop::collection::vec(any::<u8>(), 0..200), cbor in any::<bool>()) {
            let topic = if cbor { "$aws/things/a/streams/s/get/cbor" } else { "$aws/things/a/streams/s/get/json" };
            let _ = read(&place(topic).unwrap(), &payload);
        }

        /// Asked again from where the last answer ended, all of a file comes, each block once.
        #[test]
        fn every_byte_comes_once(size in 1..2_000_000u64, block in 256..=131_072u64) {
            let (mut seen, mut offset) = (Vec::new(), 0);
            while offset < size.div_ceil(block) {
                let get = Get { version: None, file: 0, block, offset, count: None, bitmap: None };
                let blocks = get.blocks(size).unwrap();
                prop_assert!(!blocks.is_empty() && blocks.len() as u64 * block <= ANSWER_BYTES.max(block));
                seen.extend_from_slice(&blocks);
                offset = seen.len() as u64;
            }
            let all: Vec<u64> = (0..size.div_ceil(block)).collect();
            prop_assert_eq!(seen, all);
        }
    }
}
