//! AWS's managed job templates: documents for what is done often, by the handlers that devices have for it (those of AWS's
//! device client, or their own). Names, documents and parameters are AWS's.

use std::collections::BTreeMap;

use crate::Error;

/// The one version there is of each.
pub const VERSION: &str = "1.0";
/// Where the handlers run.
pub const ENVIRONMENTS: [&str; 1] = ["LINUX"];
/// Lengths that may not be exceeded (AWS's regular expressions say so).
const MAX_USER_CHARS: usize = 256;
const MAX_PATH_CHARS: usize = 4096;

/// What has to be said for a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// What it is called.
    pub key: &'static str,
    /// For people.
    pub description: &'static str,
    /// What it may be, as a regular expression.
    pub regex: &'static str,
    /// One that would do.
    pub example: &'static str,
    /// Whether it may be left out: it is empty then.
    pub optional: bool,
    most_chars: Option<usize>,
}

const fn needed(key: &'static str, description: &'static str, example: &'static str) -> Parameter {
    Parameter {
        key,
        description,
        regex: "(.*?)",
        example,
        optional: false,
        most_chars: None,
    }
}

const RUN_AS_USER: Parameter = Parameter {
    key: "runAsUser",
    description: "Execute handler as another user. If not specified, then handler is executed as the same user as device client.",
    regex: "(.){0,256}",
    example: "user1",
    optional: true,
    most_chars: Some(MAX_USER_CHARS),
};
const PATH_TO_HANDLER: Parameter = Parameter {
    key: "pathToHandler",
    description: "Path to handler on the device. If not specified, then device client will use the current working directory.",
    regex: "(.){0,4096}",
    example: "/path/to/handler/script",
    optional: true,
    most_chars: Some(MAX_PATH_CHARS),
};
const DOWNLOAD: [Parameter; 4] = [
    needed(
        "downloadUrl",
        "URL of file to download.",
        "http://www.example.com/index.html",
    ),
    needed(
        "filePath",
        "Path on the device where downloaded file is written.",
        "/path/to/file",
    ),
    RUN_AS_USER,
    PATH_TO_HANDLER,
];
const PACKAGES: [Parameter; 3] = [
    needed(
        "packages",
        "Space-separated list of one or more applications.",
        "app1 app2",
    ),
    RUN_AS_USER,
    PATH_TO_HANDLER,
];
const SERVICES: [Parameter; 3] = [
    needed(
        "services",
        "Space-separated list of one or more services.",
        "service1 service2",
    ),
    RUN_AS_USER,
    PATH_TO_HANDLER,
];
const COMMAND: [Parameter; 2] = [
    needed(
        "command",
        "Comma-separated command and its arguments; a comma of their own is escaped.",
        "echo,hello",
    ),
    RUN_AS_USER,
];
const NOTHING: [Parameter; 2] = [RUN_AS_USER, PATH_TO_HANDLER];

/// What a device does with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// Runs a script of its own with the parameters that are needed.
    Handler(&'static str),
    /// Runs what it is told.
    Command,
}

/// A template that every server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManagedTemplate {
    /// What it is called.
    pub name: &'static str,
    /// For people.
    pub description: &'static str,
    /// What has to be said, in AWS's order.
    pub parameters: &'static [Parameter],
    action: Action,
}

const fn handled(
    name: &'static str,
    description: &'static str,
    handler: &'static str,
    parameters: &'static [Parameter],
) -> ManagedTemplate {
    ManagedTemplate {
        name,
        description,
        parameters,
        action: Action::Handler(handler),
    }
}

/// In the order of their names.
pub const ALL: [ManagedTemplate; 8] = [
    handled(
        "AWS-Download-File",
        "A managed job template for downloading a file.",
        "download-file.sh",
        &DOWNLOAD,
    ),
    handled(
        "AWS-Install-Application",
        "A managed job template for installing one or more applications.",
        "install-packages.sh",
        &PACKAGES,
    ),
    handled(
        "AWS-Reboot",
        "A managed job template for rebooting the device.",
        "reboot.sh",
        &NOTHING,
    ),
    handled(
        "AWS-Remove-Application",
        "A managed job template for uninstalling one or more applications.",
        "remove-packages.sh",
        &PACKAGES,
    ),
    handled(
        "AWS-Restart-Application",
        "A managed job template for restarting one or more system services.",
        "restart-services.sh",
        &SERVICES,
    ),
    ManagedTemplate {
        name: "AWS-Run-Command",
        description: "A managed job template for running a shell command.",
        parameters: &COMMAND,
        action: Action::Command,
    },
    handled(
        "AWS-Start-Application",
        "A managed job template for starting one or more system services.",
        "start-services.sh",
        &SERVICES,
    ),
    handled(
        "AWS-Stop-Application",
        "A managed job template for stopping one or more system services.",
        "stop-services.sh",
        &SERVICES,
    ),
];

/// The template of a name.
///
/// # Errors
/// [`Error::NotFound`] for another name, or another version than [`VERSION`].
pub fn template(name: &str, version: Option<&str>) -> Result<&'static ManagedTemplate, Error> {
    let is_it = |one: &&ManagedTemplate| {
        one.name == name && version.is_none_or(|version| version == VERSION)
    };
    ALL.iter().find(is_it).ok_or_else(|| {
        let version = version.map_or_else(String::new, |version| format!(":{version}"));
        let shown: String = format!("{name}{version}").chars().take(120).collect();
        Error::NotFound {
            kind: "managed job template",
            name: shown.escape_debug().to_string(),
        }
    })
}

/// The template of an ARN such as `arn:aws:iot:REGION::jobtemplate/AWS-Reboot:1.0`: they belong to no account. `None` for
/// the ARN of anything else.
///
/// # Errors
/// [`Error::NotFound`] where there is no such template.
pub fn of_arn(arn: &str) -> Result<Option<&'static ManagedTemplate>, Error> {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let ["arn", _partition, "iot", _region, "", resource] = parts[..] else {
        return Ok(None);
    };
    let Some(name) = resource.strip_prefix("jobtemplate/") else {
        return Ok(None);
    };
    match name.split_once(':') {
        Some((name, version)) => template(name, Some(version)),
        None => template(name, None),
    }
    .map(Some)
}

impl ManagedTemplate {
    /// The document, with its parameters' placeholders.
    #[must_use]
    pub fn document(&self) -> String {
        let placeholder = |key: &str| format!("\"${{aws:iot:parameter:{key}}}\"");
        // The names of actions are those of templates, without whose they are.
        let action = self.name.trim_start_matches("AWS-");
        let (kind, input) = match self.action {
            Action::Handler(handler) => {
                let args: Vec<String> = self.needed().map(|one| placeholder(one.key)).collect();
                let args = match args.is_empty() {
                    true => String::new(),
                    false => format!("\"args\":[{}],", args.join(",")),
                };
                let path = placeholder(PATH_TO_HANDLER.key);
                (
                    "runHandler",
                    format!("{{\"handler\":\"{handler}\",{args}\"path\":{path}}}"),
                )
            }
            Action::Command => (
                "runCommand",
                format!("{{\"command\":{}}}", placeholder("command")),
            ),
        };
        let user = placeholder(RUN_AS_USER.key);
        format!(
            "{{\"version\":\"1.0\",\"steps\":[{{\"action\":{{\"name\":\"{action}\",\"type\":\"{kind}\",\"input\":{input},\"runAsUser\":{user}}}}}]}}"
        )
    }

    fn needed(&self) -> impl Iterator<Item = &Parameter> {
        self.parameters.iter().filter(|one| !one.optional)
    }

    /// What stands for each parameter: what is given, and nothing for those that may be left out.
    ///
    /// # Errors
    /// [`Error::Invalid`] for one that it does not have, that is missing, or too long.
    pub fn fill(
        &self,
        given: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, Error> {
        let refuse = |why: String| {
            Err(Error::Invalid {
                field: "documentParameters".into(),
                why,
            })
        };
        let names = || {
            let names: Vec<&str> = self.parameters.iter().map(|one| one.key).collect();
            names.join(", ")
        };
        let known = |key: &&String| !self.parameters.iter().any(|one| one.key == **key);
        if let Some(unknown) = given.keys().find(known) {
            let shown: String = unknown.chars().take(80).collect();
            return refuse(format!(
                "`{}` is none of {}'s: {}",
                shown.escape_debug(),
                self.name,
                names()
            ));
        }
        let mut all = BTreeMap::new();
        for one in self.parameters {
            let value = given.get(one.key).map_or("", String::as_str);
            if value.is_empty() && !one.optional {
                return refuse(format!(
                    "{} needs `{}`: {}",
                    self.name, one.key, one.description
                ));
            }
            if let Some(most) = one.most_chars
                && (value.chars().count() > most || value.contains('\n'))
            {
                return refuse(format!(
                    "`{}` has at most {most} characters on one line",
                    one.key
                ));
            }
            all.insert(one.key.to_owned(), value.to_owned());
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn documents_are_awss() {
        let document = |name| -> Value {
            let text = template(name, None).unwrap().document();
            serde_json::from_str(&text).unwrap()
        };
        let action = |action: Value| json!({"version": "1.0", "steps": [{"action": action}]});
        assert_eq!(
            document("AWS-Download-File"),
            action(json!({
                "name": "Download-File", "type": "runHandler",
                "input": {
                    "handler": "download-file.sh",
                    "args": ["${aws:iot:parameter:downloadUrl}", "${aws:iot:parameter:filePath}"],
                    "path": "${aws:iot:parameter:pathToHandler}"
                },
                "runAsUser": "${aws:iot:parameter:runAsUser}"
            }))
        );
        assert_eq!(
            document("AWS-Reboot"),
            action(json!({
                "name": "Reboot", "type": "runHandler",
                "input": {"handler": "reboot.sh", "path": "${aws:iot:parameter:pathToHandler}"},
                "runAsUser": "${aws:iot:parameter:runAsUser}"
            }))
        );
        assert_eq!(
            document("AWS-Run-Command"),
            action(json!({
                "name": "Run-Command", "type": "runCommand",
                "input": {"command": "${aws:iot:parameter:command}"},
                "runAsUser": "${aws:iot:parameter:runAsUser}"
            }))
        );
        assert!(ALL.is_sorted_by_key(|one| one.name));
        for one in ALL {
            for parameter in one.parameters {
                let place = format!("${{aws:iot:parameter:{}}}", parameter.key);
                assert!(one.document().contains(&place), "{}", one.name);
            }
        }
    }

    #[test]
    fn arns_of_no_account_name_them() {
        let name = |arn| of_arn(arn).map(|found| found.map(|one| one.name));
        let reboot = Some("AWS-Reboot");
        assert_eq!(
            name("arn:aws:iot:eu-west-1::jobtemplate/AWS-Reboot:1.0").unwrap(),
            reboot
        );
        assert_eq!(
            name("arn:aws-cn:iot:x::jobtemplate/AWS-Reboot").unwrap(),
            reboot
        );
        for other in [
            "arn:aws:iot:eu-west-1:000000000000:jobtemplate/AWS-Reboot",
            "arn:aws:iot:eu-west-1::job/AWS-Reboot",
            "AWS-Reboot",
        ] {
            assert_eq!(name(other).unwrap(), None, "{other}");
        }
        assert!(name("arn:aws:iot:x::jobtemplate/AWS-Reboot:2.0").is_err());
        assert!(name("arn:aws:iot:x::jobtemplate/AWS-Dance").is_err());
    }

    #[test]
    fn what_is_needed_is_asked_for_and_the_rest_may_be_left_out() {
        let given = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
            pairs.iter().map(own).collect()
        };
        let fill = |pairs: &[(&str, &str)]| {
            template("AWS-Stop-Application", None)
                .unwrap()
                .fill(&given(pairs))
        };
        let all = fill(&[("services", "a b")]).unwrap();
        assert_eq!(
            all,
            given(&[
                ("services", "a b"),
                ("runAsUser", ""),
                ("pathToHandler", "")
            ])
        );
        let words = |pairs: &[(&str, &str)]| fill(pairs).unwrap_err().to_string();
        assert!(words(&[]).contains("needs `services`"));
        assert!(words(&[("services", "")]).contains("needs `services`"));
        assert!(words(&[("services", "a"), ("packages", "b")]).contains("`packages` is none of"));
        assert!(
            words(&[("services", "a"), ("runAsUser", &"u".repeat(257))]).contains("256 characters")
        );
        assert!(words(&[("services", "a"), ("pathToHandler", "a\nb")]).contains("one line"));
    }
}
