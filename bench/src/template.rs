//! Names with placeholders: `%i` a number, `%r` a role, `%n` the name of a certificate's file, `%%` a percent sign.

use crate::error::BenchError;

/// What stands for the placeholders.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Values<'a> {
    pub(crate) number: &'a str,
    pub(crate) role: &'a str,
    pub(crate) name: &'a str,
}

/// Fills a text given with `flag`.
///
/// # Errors
/// [`BenchError::Flag`] for a placeholder there is not.
pub(crate) fn fill(
    flag: &'static str,
    text: &str,
    values: Values<'_>,
) -> Result<String, BenchError> {
    let mut filled = String::with_capacity(text.len() + 8);
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        if character != '%' {
            filled.push(character);
            continue;
        }
        filled.push_str(match rest.next() {
            Some('i') => values.number,
            Some('r') => values.role,
            Some('n') => values.name,
            Some('%') => "%",
            other => {
                let other = other.map(String::from).unwrap_or_default();
                return Err(BenchError::Flag {
                    flag,
                    value: text.to_owned(),
                    mend: format!(
                        "there is no placeholder %{other}: %i is a number, %r a role, %n the name of the certificate's file, %% a percent sign"
                    ),
                });
            }
        });
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: Values<'_> = Values {
        number: "7",
        role: "pub",
        name: "lamp-7",
    };

    #[test]
    fn placeholders_are_filled_and_unknown_ones_refused() {
        for (text, filled) in [
            ("bench-%r-%i", "bench-pub-7"),
            ("%n/100%%", "lamp-7/100%"),
            ("plain", "plain"),
            ("", ""),
        ] {
            assert_eq!(fill("--topic", text, VALUES).unwrap(), filled);
        }
        for (text, said) in [("a%x", "%x"), ("a%", "placeholder %:")] {
            let error = fill("--topic", text, VALUES).unwrap_err().to_string();
            assert!(error.starts_with("--topic a%"), "{error}");
            assert!(error.contains(said), "{error}");
        }
    }
}
