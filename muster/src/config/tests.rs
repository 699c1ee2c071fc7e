use std::time::Duration;

use broker::SessionBounds;

use super::*;

fn resolve(toml: &str, flags: Serve) -> anyhow::Result<Settings> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), toml).unwrap();
    Settings::resolve(Serve {
        config: Some(file.path().to_owned()),
        ..flags
    })
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
    let flags = Serve {
        mqtt: Some("127.0.0.1:1".parse().unwrap()),
        ..Serve::default()
    };
    let settings = resolve(
        "mqtt = \"127.0.0.1:2\"\nwss = \"127.0.0.1:3\"\n[limits]\nconnections = 7\n",
        flags,
    )
    .unwrap();
    assert_eq!(settings.mqtt.port(), 1);
    assert_eq!(settings.wss.port(), 3);
    assert_eq!(settings.https, "[::]:8443".parse().unwrap());
    assert_eq!(settings.limits.connections, 7);
    assert_eq!(settings.unresolved_deny, UnresolvedDeny::Open);
    let closed = "[policy]\nunresolved_deny = \"closed\"\n";
    let closed = resolve(closed, Serve::default()).unwrap();
    assert_eq!(closed.unresolved_deny, UnresolvedDeny::Closed);
    let own = "[policy]\nlost_subscription = \"disconnect\"\nversions = 7\nattached = 20\n";
    let own = resolve(own, Serve::default()).unwrap();
    assert_eq!(own.lost_subscription, LostSubscription::Disconnect);
    let limits = PolicyLimits {
        versions: 7,
        attached: 20,
        ..PolicyLimits::default()
    };
    assert_eq!(own.policy_limits, limits);
    assert_eq!(settings.limits.packet_bytes, Limits::default().packet_bytes);
}

#[test]
fn the_documentation_names_every_key_with_its_default() {
    let text = include_str!("../../../docs/configuration.md");
    let mut examples = text
        .split("```toml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap());
    let all = examples.next().unwrap();
    let settings = resolve(all, Serve::default()).unwrap();
    assert_eq!(settings, resolve("", Serve::default()).unwrap());
    // A key that stands in no example is one that serde would name as missing if it had to be there.
    let source = [include_str!("file.rs"), include_str!("limits.rs")].concat();
    for table in [
        "File",
        "FileFirmware",
        "FileLog",
        "FileCa",
        "FilePolicy",
        "FileCompat",
        "FileLimits",
        "FileBounds",
    ] {
        let fields = source
            .split(&format!("struct {table} {{\n"))
            .nth(1)
            .unwrap()
            .split("\n}\n")
            .next()
            .unwrap();
        let keys = fields
            .lines()
            .filter_map(|line| {
                line.trim()
                    .trim_start_matches("pub(super) ")
                    .split_once(": ")
            })
            .map(|(key, _)| key)
            .filter(|key| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        let mut count = 0;
        for key in keys {
            count += 1;
            assert!(text.contains(key), "{table}.{key} is not documented");
        }
        assert!(count > 0, "{table}");
    }
    let own = resolve(examples.next().unwrap(), Serve::default()).unwrap();
    assert_eq!(own.limits.own.groups.len(), 1);
}

#[test]
fn a_name_that_can_stand_in_no_certificate_is_refused_by_its_flag() {
    for wrong in ["a b", "", "http://a", "a:1"] {
        let flags = Serve {
            names: vec!["localhost".into(), wrong.into()],
            ..Serve::default()
        };
        let said = resolve("", flags).unwrap_err().to_string();
        assert!(
            said.contains(&format!("{wrong:?}")) && said.contains("--name"),
            "{said}"
        );
    }
    let names = [
        "muster.example.org",
        "192.0.2.7",
        "2001:db8::1",
        "lamp_host",
    ];
    let flags = Serve {
        names: names.map(str::to_owned).to_vec(),
        ..Serve::default()
    };
    assert_eq!(resolve("", flags).unwrap().names, names);
}

#[test]
fn a_url_that_can_stand_in_no_certificate_is_refused_by_its_flag() {
    for wrong in ["foo", "", "ftp://a", "http://", "http://a b", "http://a/?b"] {
        let flags = Serve {
            public_url: Some(wrong.into()),
            ..Serve::default()
        };
        let said = format!("{:#}", resolve("", flags).unwrap_err());
        assert!(said.contains(&format!("{wrong:?}")), "{said}");
        assert!(said.contains("--public-url"), "{said}");
    }
    let toml = "public_url = 'https://ca.example'";
    let settings = resolve(toml, Serve::default()).unwrap();
    assert_eq!(settings.public_url.as_deref(), Some("https://ca.example"));
}

#[test]
fn a_value_that_is_not_taken_is_named_with_its_key_its_line_and_the_mend() {
    for (toml, expected) in [
        (
            "[mqtt]\nfoo = 1",
            "line 1: mqtt: write an address and a port",
        ),
        (
            "names = []\nmqtt = 'foo'",
            "line 2: mqtt = 'foo': write an address and a port",
        ),
        ("http = 5", "line 1: http = 5: write an address and a port"),
        (
            "[limits]\nconnections = -1",
            "line 2: limits.connections = -1: write a whole number, 1 or more",
        ),
        (
            "limits.connections = 'x'",
            "line 1: limits.connections = 'x': write a whole number, 1 or more",
        ),
        (
            "[limits]\nkeep_alive_seconds = 1.5",
            "line 2: limits.keep_alive_seconds = 1.5: write a whole number, 1 or more",
        ),
        (
            "[limits]\ntopic_aliases = 70000",
            "line 2: limits.topic_aliases = 70000: write a whole number, 1 to 65535",
        ),
        (
            "[limits.things.a]\ntopic_levels = 'x'",
            "line 2: limits.things.a.topic_levels = 'x': write a whole number",
        ),
        (
            "[ca]\nexpired_grace_seconds = -1",
            "line 2: ca.expired_grace_seconds = -1: write a whole number, 0 or more",
        ),
        (
            "[compat]\naws = 1",
            "line 2: compat.aws = 1: write true or false",
        ),
        ("names = 'a'", "line 1: names = 'a': write a list"),
        ("region = 5", "line 1: region = 5: write text in quotes"),
        (
            "[ca]\npkcs11_module = 5",
            "line 2: ca.pkcs11_module = 5: write a path in quotes",
        ),
        ("limits = 5", "line 1: limits = 5: write a table"),
        (
            "[limits]\nconections = 1",
            "line 2: limits: unknown field `conections`",
        ),
        (
            "[ca]\nkey_custody = 'paper'",
            "line 2: ca.key_custody = 'paper': unknown variant `paper`, expected one of",
        ),
    ] {
        let said = format!("{:#}", resolve(toml, Serve::default()).unwrap_err());
        assert!(said.contains(expected), "{toml}: {said}");
        for ours in ["usize", "u64", "u16", "struct", "sequence"] {
            assert!(!said.contains(ours), "{toml}: {said}");
        }
    }
}

#[test]
fn bytes_that_are_no_text_are_placed() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), b"account = '1'\nregion = '\xff'\n").unwrap();
    let said = read(file.path()).unwrap_err().to_string();
    assert!(
        said.contains("line 2 (byte 24)") && said.contains("UTF-8"),
        "{said}"
    );
}

#[test]
fn listeners_groups_and_things_have_bounds_of_their_own() {
    let toml = "[limits]\npacket_bytes = 9\n[limits.wss]\npacket_bytes = 8\n\
                [limits.groups.gateways]\nkeep_alive_seconds = 7\n\
                [limits.things.'pump:1']\ntopic_levels = 6\nthing_retained_messages = 5\n";
    let limits = resolve(toml, Serve::default()).unwrap().limits;
    let own = &limits.own;
    assert_eq!(limits.packet_bytes, 9);
    assert_eq!(own.mqtt, SessionBounds::default());
    assert_eq!(own.wss.packet_bytes, Some(8));
    let gateways = own.groups[&"gateways".parse().unwrap()];
    assert_eq!(gateways.keep_alive, Some(Duration::from_secs(7)));
    let pump = own.things[&"pump:1".parse().unwrap()];
    assert_eq!(pump.topic_levels, Some(6));
    assert_eq!(pump.thing_retained_messages, Some(5));
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    for (toml, word) in [
        ("mqqt = \"x\"", "mqqt"),
        ("[limits]\nconections = 1", "conections"),
        ("[limits]\nconnections = 0", "limits.connections"),
        ("[limits.wss]\nconnections = 1", "connections"),
        (
            "[limits.groups.a]\nthing_retained_bytes = 0",
            "limits.groups.a.thing_retained_bytes",
        ),
        (
            "[limits.things.a]\ntopic_levels = 0",
            "limits.things.a.topic_levels",
        ),
        ("[limits.groups.'a b']\ntopic_levels = 1", "a b"),
        ("mqtt = 5", "mqtt"),
        (
            "[firmware]\ndownload_bytes_per_second = 100",
            "firmware.download_bytes_per_second = 100: at least 16384, or 0",
        ),
        ("[ca]\ncrl_shards = 12", "crl_shards"),
        (
            "[ca]\nexpired_grace_seconds = 315576001",
            "ca.expired_grace_seconds",
        ),
        ("[ca]\nkey_custody = \"paper\"", "paper"),
        (
            "[ca]\ndevice_validity_seconds = 29",
            "ca.device_validity_seconds",
        ),
        ("[ca]\nserver_validity_seconds = 315576001", "315576000"),
        ("[ca]\nbackdate_seconds = 3601", "3600"),
        ("[compat]\naws = 1", "aws"),
        ("[compat]\nazure = true", "azure"),
        ("[policy]\nunresolved_deny = \"shut\"", "shut"),
        ("[policy]\nlost_subscription = \"keep\"", "keep"),
        (
            "[policy]\nattestation_seconds = 0",
            "policy.attestation_seconds = 0: 1 to 31536000",
        ),
        (
            "[policy]\nattestation_seconds = 60\nattestation_max_seconds = 59",
            "policy.attestation_seconds = 60: at most policy.attestation_max_seconds, which is 59",
        ),
        (
            "[policy]\ndocument_bytes = 2_047",
            "policy.document_bytes = 2047",
        ),
        (
            "[policy]\ndocument_visible_chars = 2_047",
            "policy.document_visible_chars = 2047",
        ),
        (
            "[policy]\nversions = 1",
            "policy.versions = 1: from 2 to 100",
        ),
        (
            "[policy]\nattached = 0",
            "policy.attached = 0: from 1 to 100",
        ),
        ("account = \"1\"", "account"),
        ("region = \"EU\"", "region"),
        ("mqtt = \"127.0.0.1:2\"\n[lim", "configuration file"),
    ] {
        let error = format!("{:#}", resolve(toml, Serve::default()).unwrap_err());
        assert!(error.contains(word), "{toml}: {error}");
    }
    let missing = Serve {
        config: Some("/nonexistent.toml".into()),
        ..Serve::default()
    };
    assert!(format!("{:#}", Settings::resolve(missing).unwrap_err()).contains("/nonexistent.toml"));
}
