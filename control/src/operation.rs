//! The shape of an operation: everything about it stands in one value, its file's constant.

use std::io::Read;

use http::Method;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operators::Role;
use crate::rooms::Rooms;

/// One operation of the API. There is no operation without a least role, so nothing is open by
/// omission.
pub(crate) struct Operation {
    /// Its name, AWS's where it has one.
    pub(crate) name: &'static str,
    /// The verb.
    pub(crate) method: Method,
    /// The path, parameters in braces.
    pub(crate) path: &'static str,
    /// The least role an operator needs for it.
    pub(crate) least: Role,
    /// Query parameters it reads.
    pub(crate) query: &'static [&'static str],
    /// Query parameters and body fields that AWS knows for it and that are refused by name here.
    pub(crate) undone: &'static [&'static str],
    /// What it does.
    pub(crate) run: Run,
}

impl Operation {
    /// Whether it changes something, and so is recorded. A part of an upload changes nothing until the last is there.
    pub(crate) fn changes(&self) -> bool {
        self.method != Method::GET
            && self.least != Role::Viewer
            && self.name != "UploadFirmwarePart"
    }
}

type Plain = fn(&Rooms, &Call) -> Result<Answer, ApiError>;
pub(crate) type Upload = fn(&Rooms, &Call, &mut dyn Read) -> Result<Answer, ApiError>;

/// What an operation does, on a thread that may block.
pub(crate) enum Run {
    /// Without a request body.
    Plain(Plain),
    /// With a JSON body, which it reads by [`Call::body`].
    WithBody(Plain),
    /// With a body too large to be held: it is read as a stream, which ends in an error where the
    /// body is not the one that was signed. Nothing may be kept before its end.
    Upload(Upload),
}
