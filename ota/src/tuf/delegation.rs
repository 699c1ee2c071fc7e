//! Which delegated roles may speak of a target (TUF 1.0 §4.5).

use std::collections::BTreeSet;

use glob::Pattern;
use serde::Deserialize;

use super::key::Keys;
use super::metadata::RoleKeys;
use crate::digest::{Sha256, sha256};

/// The four roles that only the root delegates to.
pub(super) const TOP_LEVEL: [&str; 4] = ["root", "timestamp", "snapshot", "targets"];

/// What a targets role delegates.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Delegations {
    pub(super) keys: Keys,
    roles: Option<Vec<DelegatedRole>>,
    succinct_roles: Option<SuccinctRoles>,
}

#[derive(Clone, Debug, Deserialize)]
struct DelegatedRole {
    name: String,
    #[serde(flatten)]
    by: RoleKeys,
    terminating: bool,
    paths: Option<Vec<String>>,
    path_hash_prefixes: Option<Vec<String>>,
}

/// Bins by hash of the path, all under the same keys (TAP 15).
#[derive(Clone, Debug, Deserialize)]
struct SuccinctRoles {
    #[serde(flatten)]
    by: RoleKeys,
    bit_length: u32,
    name_prefix: String,
}

/// A role to ask for a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Child {
    pub(super) name: String,
    /// Whether roles named after it are not asked (TUF 1.0 §5.6.7.2.1).
    pub(super) terminating: bool,
}

impl Delegations {
    /// Refuses what no repository means.
    pub(super) fn check(&self) -> Result<(), String> {
        match (&self.roles, &self.succinct_roles) {
            (Some(roles), None) => {
                let mut names = BTreeSet::new();
                for role in roles {
                    role.check()?;
                    if !names.insert(role.name.as_str()) {
                        return Err(format!("`delegations` names role `{}` twice", role.name));
                    }
                }
                Ok(())
            }
            (None, Some(succinct)) => succinct.check(),
            _ => Err("`delegations` needs `roles` or `succinct_roles`, and not both".into()),
        }
    }

    /// The keys and threshold of delegated role `name`.
    pub(super) fn role(&self, name: &str) -> Option<&RoleKeys> {
        let listed = self
            .roles
            .iter()
            .flatten()
            .find(|role| role.name == name)
            .map(|role| &role.by);
        listed.or_else(|| {
            self.succinct_roles
                .as_ref()
                .filter(|succinct| succinct.has(name))
                .map(|succinct| &succinct.by)
        })
    }

    /// The roles that may speak of the target at `path`, in the order to ask them.
    pub(super) fn children(&self, path: &str) -> Vec<Child> {
        let digest = sha256(path.as_bytes());
        let hex = digest.to_string();
        let listed = self
            .roles
            .iter()
            .flatten()
            .filter(|role| role.covers(path, &hex))
            .map(|role| Child {
                name: role.name.clone(),
                terminating: role.terminating,
            });
        let bin = self.succinct_roles.iter().map(|succinct| Child {
            name: succinct.bin(&digest),
            terminating: true,
        });
        listed.chain(bin).collect()
    }
}

impl DelegatedRole {
    fn check(&self) -> Result<(), String> {
        // Its metadata would stand in for a top-level role's.
        if self.name.is_empty() || TOP_LEVEL.contains(&self.name.as_str()) {
            return Err(format!("`{}` is no name for a delegated role", self.name));
        }
        self.by.check(&self.name)?;
        if self.paths.is_some() == self.path_hash_prefixes.is_some() {
            return Err(format!(
                "role `{}` needs `paths` or `path_hash_prefixes`, and not both",
                self.name
            ));
        }
        Ok(())
    }

    fn covers(&self, path: &str, hex: &str) -> bool {
        let prefixed = self
            .path_hash_prefixes
            .iter()
            .flatten()
            .any(|prefix| hex.starts_with(prefix.as_str()));
        prefixed
            || self
                .paths
                .iter()
                .flatten()
                .any(|pattern| matches(pattern, path))
    }
}

impl SuccinctRoles {
    fn check(&self) -> Result<(), String> {
        self.by.check(&self.name_prefix)?;
        if !(1..=32).contains(&self.bit_length) {
            return Err(format!("`bit_length` is {}, not 1 to 32", self.bit_length));
        }
        if self.name_prefix.is_empty() {
            return Err("`name_prefix` is empty".into());
        }
        Ok(())
    }

    /// Hex digits of a bin's number.
    const fn digits(&self) -> usize {
        self.bit_length.div_ceil(4) as usize
    }

    fn bin(&self, digest: &Sha256) -> String {
        let first = digest
            .as_bytes()
            .iter()
            .take(4)
            .fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
        let number = first >> 32_u32.saturating_sub(self.bit_length);
        format!(
            "{}-{number:0width$x}",
            self.name_prefix,
            width = self.digits()
        )
    }

    fn has(&self, name: &str) -> bool {
        let Some(number) = name
            .strip_prefix(self.name_prefix.as_str())
            .and_then(|rest| rest.strip_prefix('-'))
        else {
            return false;
        };
        let hex = number
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        number.len() == self.digits()
            && hex
            && u64::from_str_radix(number, 16).is_ok_and(|bin| bin >> self.bit_length == 0)
    }
}

/// Whether a path is one of a PATHPATTERN's: a shell pattern whose wildcards stay within one part of the
/// path (TUF 1.0 §4.5).
pub(super) fn matches(pattern: &str, path: &str) -> bool {
    let mut parts = path.split('/');
    pattern
        .split('/')
        .all(|pattern| parts.next().is_some_and(|part| part_matches(pattern, part)))
        && parts.next().is_none()
}

fn part_matches(pattern: &str, part: &str) -> bool {
    // To the library `**` means any depth; here it is `*` said twice.
    let mut single = String::with_capacity(pattern.len());
    for letter in pattern.chars() {
        if !(letter == '*' && single.ends_with('*')) {
            single.push(letter);
        }
    }
    Pattern::new(&single).map_or_else(|_| pattern == part, |pattern| pattern.matches(part))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn wildcards_stay_within_a_part_and_letters_keep_their_case() {
        // The specification's examples first.
        for (pattern, path) in [
            ("targets/*.tgz", "targets/foo.tgz"),
            ("foo-version-?.tgz", "foo-version-2.tgz"),
            ("foo-version-?.tgz", "foo-version-a.tgz"),
            ("*.tgz", "foo.tgz"),
            ("*", "a"),
            ("**", "a"),
            ("*/*", "a/b"),
            ("a[0-9]", "a7"),
            ("a[", "a["),
            (".*", ".hidden"),
            ("*", ".hidden"),
        ] {
            assert!(matches(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("targets/*.tgz", "targets/foo.txt"),
            ("foo-version-?.tgz", "foo-version-alpha.tgz"),
            ("*.tgz", "targets/foo.tgz"),
            ("foo.tgz", "targets/foo.tgz"),
            ("*", "a/b"),
            ("**", "a/b"),
            ("a/**", "a/b/c"),
            ("?", "/"),
            ("a?b", "a/b"),
            ("*.md", "README.MD"),
            ("a", "a/"),
            ("a/", "a"),
            ("", "a"),
        ] {
            assert!(!matches(pattern, path), "{pattern} {path}");
        }
    }

    fn read(value: serde_json::Value) -> Delegations {
        serde_json::from_value(value).unwrap()
    }

    fn role(name: &str, more: &serde_json::Value) -> serde_json::Value {
        let mut role = json!({"name": name, "keyids": [], "threshold": 1, "terminating": false});
        let fields = more.as_object().unwrap().clone();
        role.as_object_mut().unwrap().extend(fields);
        role
    }

    #[test]
    fn a_delegation_nobody_means_is_refused() {
        let paths = json!({"paths": ["*"]});
        let whole = json!({"keys": {}, "roles": [role("a", &paths), role("b", &paths)]});
        read(whole).check().unwrap();
        let succinct = json!({"keyids": [], "threshold": 1, "bit_length": 8, "name_prefix": "bin"});
        read(json!({"keys": {}, "succinct_roles": succinct}))
            .check()
            .unwrap();
        for bad in [
            json!({"keys": {}}),
            json!({"keys": {}, "roles": [], "succinct_roles": succinct}),
            json!({"keys": {}, "roles": [role("a", &paths), role("a", &paths)]}),
            json!({"keys": {}, "roles": [role("root", &paths)]}),
            json!({"keys": {}, "roles": [role("targets", &paths)]}),
            json!({"keys": {}, "roles": [role("", &paths)]}),
            json!({"keys": {}, "roles": [role("a", &json!({}))]}),
            json!({"keys": {}, "roles": [role("a", &json!({"paths": [], "path_hash_prefixes": []}))]}),
            json!({"keys": {}, "roles": [role("a", &json!({"paths": [], "threshold": 0}))]}),
            json!({"keys": {}, "succinct_roles": {"keyids": [], "threshold": 1, "bit_length": 33, "name_prefix": "bin"}}),
            json!({"keys": {}, "succinct_roles": {"keyids": [], "threshold": 1, "bit_length": 0, "name_prefix": "bin"}}),
        ] {
            assert!(read(bad.clone()).check().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_target_is_found_by_the_hash_of_its_path() {
        // SHA-256 of "abc" begins ba7816bf.
        let delegations = read(json!({"keys": {}, "roles": [
            role("no", &json!({"path_hash_prefixes": ["bb", "a"]})),
            role("yes", &json!({"path_hash_prefixes": ["00", "ba7"], "terminating": true})),
        ]}));
        let child = |name: &str| Child {
            name: name.into(),
            terminating: true,
        };
        assert_eq!(delegations.children("abc"), [child("yes")]);
        for (bits, bin) in [(1, "1"), (4, "b"), (5, "17"), (8, "ba"), (32, "ba7816bf")] {
            let delegations = read(json!({"keys": {}, "succinct_roles":
                {"keyids": [], "threshold": 1, "bit_length": bits, "name_prefix": "bin"}}));
            assert_eq!(delegations.children("abc"), [child(&format!("bin-{bin}"))]);
            assert!(delegations.role(&format!("bin-{bin}")).is_some());
        }
        let five = read(json!({"keys": {}, "succinct_roles":
            {"keyids": [], "threshold": 1, "bit_length": 5, "name_prefix": "bin"}}));
        for no in [
            "bin-20", "bin-7", "bin-007", "bin-1F", "bin-+1", "bin17", "bin-",
        ] {
            assert!(five.role(no).is_none(), "{no}");
        }
    }

    proptest! {
        #[test]
        fn no_pattern_reaches_into_another_directory(pattern in "[a*?\\[\\]!-]{0,12}", path in "[a-c/]{0,12}") {
            if path.contains('/') {
                prop_assert!(!matches(&pattern, &path));
            }
        }

        #[test]
        fn a_path_matches_itself_where_it_has_no_wildcards(path in "[a-zA-Z0-9./_-]{0,40}") {
            prop_assert!(matches(&path, &path));
        }

        #[test]
        fn every_path_has_exactly_one_bin_that_the_delegation_knows(bits in 1_u32..=32, path in ".{0,40}") {
            let delegations = read(json!({"keys": {}, "succinct_roles":
                {"keyids": [], "threshold": 1, "bit_length": bits, "name_prefix": "p"}}));
            let children = delegations.children(&path);
            prop_assert_eq!(children.len(), 1);
            prop_assert!(delegations.role(&children[0].name).is_some());
        }
    }
}
