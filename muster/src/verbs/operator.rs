//! `muster operator …`.

use super::{client, output};
use crate::{
    cli::{Global, Operator},
    client::encode,
};
use anyhow::{Context as _, bail};
use http::Method;
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

const PATH: &str = "/muster/v1/operators";

pub(super) fn run(global: &Global, verb: Operator) -> anyhow::Result<ExitCode> {
    match verb {
        Operator::Create { name, role, out } => {
            let client = client(global)?;
            let files = Files::prepare(out, &name)?;
            let body = json!({ "name": name, "role": role });
            let made = client
                .call(Method::POST, PATH, Some(&body))
                .inspect_err(|_| files.withdraw())?;
            files.write(&made)?;
            output::answer(global, &without_secrets(made), |_| files.report("is made"))?;
        }
        Operator::List => {
            let listed = client(global)?.call(Method::GET, PATH, None)?;
            let rows = output::items(&listed, "operators").iter().map(row);
            let rows: Vec<Vec<String>> = rows.collect();
            output::answer(global, &listed, |_| {
                output::table(&["operator", "role", "certificate"], &rows)
            })?;
        }
        Operator::Rotate { name, out, yes } => {
            output::confirm(
                yes,
                &format!(
                    "Give operator {name} other keys? Who uses those it has is refused at once."
                ),
            )?;
            let client = client(global)?;
            // Those on the server's own disk are the server's to write.
            let kept = global.credentials.is_none()
                && kept(&global.data, &name).is_some_and(|path| path.exists());
            let files = match (out, kept) {
                (None, true) => None,
                (out, _) => Some(Files::prepare(out, &name)?),
            };
            let path = format!("{PATH}/{}/rotate", encode(&name));
            let withdraw = |_: &anyhow::Error| files.iter().for_each(Files::withdraw);
            let made = client
                .call(Method::POST, &path, None)
                .inspect_err(withdraw)?;
            if let Some(files) = &files {
                files.write(&made)?;
            }
            output::answer(global, &without_secrets(made), |made| match &files {
                Some(files) => files.report("has other keys"),
                None if made["kept"] == false => format!(
                    "operator {name} has other keys; its files in {} could not be put in their place (the server's log \
                     says why): FILE.next are the new ones, and take it at the server's next start",
                    global.data.join("operators").display()
                ),
                None => format!(
                    "operator {name} has other keys; its files in {} are written anew",
                    global.data.join("operators").display()
                ),
            })?;
        }
        Operator::Delete { name, yes } => {
            output::confirm(
                yes,
                &format!("Delete operator {name}? Its next request is refused."),
            )?;
            let path = format!("{PATH}/{}", encode(&name));
            let gone = client(global)?.call(Method::DELETE, &path, None)?;
            output::answer(global, &gone, |_| format!("operator {name} is deleted"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Where the server keeps the credentials of an operator of that name, if any could be.
fn kept(data: &Path, name: &str) -> Option<PathBuf> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let is_name = !name.is_empty() && name.chars().all(plain);
    is_name.then(|| data.join(format!("operators/{name}.credentials")))
}

fn row(operator: &Value) -> Vec<String> {
    let field = |key| output::field(operator, key).to_owned();
    vec![field("name"), field("role"), field("certificateId")]
}

/// They are in their files; a terminal's or pipeline's history is no place for them.
fn without_secrets(mut answer: Value) -> Value {
    if let Some(fields) = answer.as_object_mut() {
        fields.remove("privateKey");
        fields.remove("credentials");
    }
    answer
}

/// What an operator needs on disk.
struct Files {
    directory: PathBuf,
    name: String,
    /// Whether the directory is there for this operator only.
    made: bool,
}

impl Files {
    /// Looks before the server is asked: what is there already is somebody's only way in.
    fn prepare(directory: Option<PathBuf>, name: &str) -> anyhow::Result<Self> {
        if kept(Path::new(""), name).is_none() {
            bail!(
                "operator name {name:?}: 1 to 32 of a-z, 0-9 and hyphen, beginning with a letter"
            );
        }
        let directory = directory.unwrap_or_else(|| PathBuf::from(".").join(name));
        let files = Files {
            made: !directory.exists(),
            directory,
            name: name.to_owned(),
        };
        for suffix in ["credentials", "key", "crt"] {
            let path = files.path(suffix);
            if path.exists() {
                bail!(
                    "{} exists already and would be lost: name another directory with --out, or move it away",
                    path.display()
                );
            }
        }
        std::fs::create_dir_all(&files.directory)
            .with_context(|| format!("make directory {}", files.directory.display()))?;
        Ok(files)
    }

    /// After the server said no: a directory made for nothing is taken away again.
    fn withdraw(&self) {
        if self.made {
            // Only an empty one goes; one that stays harms nobody.
            let _ = std::fs::remove_dir(&self.directory);
        }
    }

    fn path(&self, suffix: &str) -> PathBuf {
        self.directory.join(format!("{}.{suffix}", self.name))
    }

    /// Writes what the server answered. What is secret first: it exists nowhere else.
    fn write(&self, answer: &Value) -> anyhow::Result<()> {
        use store::files::{write_private, write_public};
        for (suffix, key) in [
            ("credentials", "credentials"),
            ("key", "privateKey"),
            ("crt", "certificatePem"),
        ] {
            let path = self.path(suffix);
            let text = output::field(answer, key).as_bytes();
            let how = if suffix == "crt" {
                write_public
            } else {
                write_private
            };
            how(&path, text).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }

    /// What a person reads.
    fn report(&self, what: &str) -> String {
        let credentials = self.path("credentials");
        let credentials = crate::shell::quote(&credentials.display().to_string());
        format!(
            "operator {} {what}; its files are in {}\ntry it:\n  muster --credentials {credentials} status",
            self.name,
            self.directory.display()
        )
    }
}
