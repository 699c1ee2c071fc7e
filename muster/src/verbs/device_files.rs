//! What a device needs on disk, and the line that tries it.

use super::output::field;
use crate::shell::quote;
use anyhow::{Context as _, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The files of one device, before anything is written.
pub(super) struct DeviceFiles {
    directory: PathBuf,
    name: String,
    /// Whether the directory is there for this device only.
    made: bool,
}

impl DeviceFiles {
    /// Looks before the server is asked: a file that is there already is another device's, or this one's only key.
    pub(super) fn prepare(
        directory: Option<PathBuf>,
        name: &str,
        overwrite: bool,
    ) -> anyhow::Result<Self> {
        let directory = directory.unwrap_or_else(|| PathBuf::from(".").join(name));
        let files = DeviceFiles {
            made: !directory.exists(),
            directory,
            name: name.to_owned(),
        };
        if !overwrite && files.path("key").exists() {
            let key = files.path("key");
            // The key is written first, and only once the server has made the device.
            if !files.path("crt").exists() {
                bail!(
                    "{} lies there without its certificate: a command was broken off after device {name} was made. Give it a new certificate with `muster device replace {name} --out DIR`, DIR being another directory; then remove this key",
                    key.display()
                );
            }
            bail!(
                "{} exists already and would be lost: name another directory with --out, or move it away (a device that exists gets a new certificate by `muster device replace {name} --out DIR`)",
                key.display()
            );
        }
        std::fs::create_dir_all(&files.directory)
            .with_context(|| format!("make directory {}", files.directory.display()))?;
        Ok(files)
    }

    /// After the server said no: a directory made for nothing is taken away again.
    pub(super) fn withdraw(&self) {
        if self.made {
            // Only an empty one goes; one that stays harms nobody.
            let _ = std::fs::remove_dir(&self.directory);
        }
    }

    fn path(&self, extension: &str) -> PathBuf {
        self.directory
            .join(format!("{}.{extension}", stem(&self.name)))
    }

    /// Writes what the server answered an enrolment with. The key first: it exists nowhere else.
    pub(super) fn write(&self, answer: &Value) -> anyhow::Result<()> {
        if let Some(key) = answer.get("privateKey").and_then(Value::as_str) {
            write(&self.path("key"), key, store::files::write_private)?;
        }
        write(
            &self.path("crt"),
            field(answer, "certificatePem"),
            store::files::write_public,
        )?;
        write(
            &self.directory.join("root.crt"),
            field(answer, "rootPem"),
            store::files::write_public,
        )?;
        write_firmware_root(&self.directory, answer)?;
        self.sweep()
    }

    /// Takes away what a command that was broken off left half written. Only in a directory that is called as the
    /// device: in another, commands for other devices may be writing at this moment. Of those for this device the server
    /// has just let this one through, and no other.
    fn sweep(&self) -> anyhow::Result<()> {
        let called = std::fs::canonicalize(&self.directory)
            .with_context(|| format!("look at {}", self.directory.display()))?;
        if called.file_name().is_some_and(|last| last == &*self.name) {
            store::files::sweep(&self.directory)?;
        }
        Ok(())
    }

    /// What a person reads: where the files are, and a command that publishes from this device as printed.
    pub(super) fn report(&self, answer: &Value) -> String {
        let mut lines = vec![format!(
            "device {} has its certificate in {}",
            self.name,
            self.directory.display()
        )];
        if answer.get("privateKey").is_none_or(Value::is_null) {
            lines.push(
                "its private key stays where the request was made; put it in place of KEY below"
                    .into(),
            );
        }
        lines.push(format!("try it:\n  {}", self.try_line(answer)));
        lines.join("\n")
    }

    pub(super) fn try_line(&self, answer: &Value) -> String {
        let shown = |path: PathBuf| quote(&path.display().to_string());
        let key = match answer.get("privateKey") {
            Some(Value::String(_)) => shown(self.path("key")),
            _ => "KEY".to_owned(),
        };
        let port = answer
            .get("mqttPort")
            .and_then(Value::as_u64)
            .unwrap_or(8883);
        format!(
            "mosquitto_pub -h {} -p {port} --cafile {} --cert {} --key {key} -i {name} -t dt/{name}/hello -m hello -q 1",
            quote(field(answer, "mqttHost")),
            shown(self.directory.join("root.crt")),
            shown(self.path("crt")),
            name = self.name,
        )
    }
}

/// What the files of a device are called: as the device, but where that is what the authority's root is called.
pub(super) fn stem(name: &str) -> String {
    if name.eq_ignore_ascii_case("root") {
        format!("thing-{name}")
    } else {
        name.to_owned()
    }
}

/// The firmware trust root, where the server has one.
pub(super) fn write_firmware_root(directory: &Path, answer: &Value) -> anyhow::Result<()> {
    let Some(root) = answer.get("firmwareRoot").filter(|root| !root.is_null()) else {
        return Ok(());
    };
    // Byte for byte what was signed, where the server hands it over as text.
    let text = root
        .as_str()
        .map_or_else(|| root.to_string(), str::to_owned);
    write(
        &directory.join("firmware-root.json"),
        &text,
        store::files::write_public,
    )
}

fn write(
    path: &Path,
    text: &str,
    how: fn(&Path, &[u8]) -> Result<(), store::StoreError>,
) -> anyhow::Result<()> {
    how(path, text.as_bytes()).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer() -> Value {
        json!({ "privateKey": "KEY\n", "certificatePem": "CRT\n", "rootPem": "ROOT\n", "mqttHost": "localhost", "mqttPort": 1883 })
    }

    #[test]
    fn a_key_is_for_its_owner_only_and_never_overwritten() {
        use std::os::unix::fs::PermissionsExt as _;
        let out = tempfile::tempdir().unwrap();
        let files = DeviceFiles::prepare(Some(out.path().to_owned()), "lamp-1", false).unwrap();
        files.write(&answer()).unwrap();
        let key = out.path().join("lamp-1.key");
        assert_eq!(
            std::fs::metadata(&key).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let again = DeviceFiles::prepare(Some(out.path().to_owned()), "lamp-1", false)
            .err()
            .unwrap();
        assert!(again.to_string().contains("--out"), "{again}");
        assert_eq!(std::fs::read_to_string(key).unwrap(), "KEY\n");
    }

    #[test]
    fn what_a_broken_command_left_is_told_from_a_whole_device_and_swept() {
        let home = tempfile::tempdir().unwrap();
        let out = home.path().join("lamp-1");
        std::fs::create_dir(&out).unwrap();
        let refused = || {
            DeviceFiles::prepare(Some(out.clone()), "lamp-1", false)
                .err()
                .unwrap()
                .to_string()
        };
        std::fs::write(out.join("lamp-1.key"), "KEY").unwrap();
        let broken = refused();
        assert!(
            broken.contains("broken off")
                && broken.contains("muster device replace lamp-1 --out DIR"),
            "{broken}"
        );
        std::fs::write(out.join("lamp-1.crt"), "CRT").unwrap();
        let whole = refused();
        assert!(
            !whole.contains("broken off") && whole.contains("device replace lamp-1 --out DIR"),
            "{whole}"
        );
        for name in ["lamp-1.key", "lamp-1.crt"] {
            std::fs::remove_file(out.join(name)).unwrap();
        }

        let shared = home.path().join("keys");
        for directory in [&out, &shared] {
            std::fs::create_dir_all(directory).unwrap();
            std::fs::write(directory.join(".writing-aB3"), "half").unwrap();
            let files = DeviceFiles::prepare(Some(directory.clone()), "lamp-1", false).unwrap();
            files.write(&answer()).unwrap();
            assert!(directory.join("lamp-1.crt").exists());
        }
        assert!(!out.join(".writing-aB3").exists());
        assert!(
            shared.join(".writing-aB3").exists(),
            "another device's, for all that is known"
        );
    }

    #[test]
    fn a_device_called_as_the_root_keeps_its_certificate_and_the_root() {
        let home = tempfile::tempdir().unwrap();
        for name in ["root", "Root"] {
            let out = home.path().join(name);
            let files = DeviceFiles::prepare(Some(out.clone()), name, false).unwrap();
            files.write(&answer()).unwrap();
            let read = |file: &str| std::fs::read_to_string(out.join(file)).unwrap();
            assert_eq!(read("root.crt"), field(&answer(), "rootPem"));
            let own = read(&format!("thing-{name}.crt"));
            assert_eq!(own, field(&answer(), "certificatePem"));
            assert!(out.join(format!("thing-{name}.key")).exists());
        }
    }

    #[test]
    fn a_refused_device_leaves_no_directory_and_takes_none_away() {
        let home = tempfile::tempdir().unwrap();
        let out = home.path().join("lamp-1");
        let prepare = || DeviceFiles::prepare(Some(out.clone()), "lamp-1", false).unwrap();
        prepare().withdraw();
        assert!(!out.exists());
        std::fs::create_dir(&out).unwrap();
        prepare().withdraw();
        assert!(out.exists());
    }

    #[test]
    fn the_line_to_try_survives_a_shell() {
        let files = DeviceFiles {
            directory: "my dir".into(),
            name: "lamp-1".into(),
            made: false,
        };
        let line = files.try_line(&answer());
        assert!(
            line.contains("--key 'my dir/lamp-1.key' -i lamp-1 -t dt/lamp-1/hello"),
            "{line}"
        );
        assert!(line.contains("-p 1883"), "{line}");
    }
}
