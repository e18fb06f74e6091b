// SPDX-License-Identifier: Apache-2.0
//! Names: what may be one, and new ones.

/// The letters of generated names: no vowels, so that no words come out.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX: usize = 5;
const MAX_GENERATED: usize = 63;

pub(crate) const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, \
    '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
pub(crate) const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', \
    and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
pub(crate) const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start \
    with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
    validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
pub(crate) const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start \
    and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
    '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
pub(crate) const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', \
    '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex \
    used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// RFC 1123 label.
pub(crate) fn is_label(name: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = name.as_bytes();
    !bytes.is_empty()
        && bytes.len() <= 63
        && bytes.iter().all(|c| inner(*c) || *c == b'-')
        && bytes.first().is_some_and(|c| inner(*c))
        && bytes.last().is_some_and(|c| inner(*c))
}

/// RFC 1035 label: one that begins with a letter.
pub(crate) fn is_label_1035(name: &str) -> bool {
    is_label(name) && name.starts_with(|c: char| c.is_ascii_lowercase())
}

/// RFC 1123 subdomain.
pub(crate) fn is_subdomain(name: &str) -> bool {
    // The parts may be longer than a label's 63 characters; the whole is bounded.
    let part = |p: &str| {
        let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        let bytes = p.as_bytes();
        bytes.iter().all(|c| inner(*c) || *c == b'-')
            && bytes.first().is_some_and(|c| inner(*c))
            && bytes.last().is_some_and(|c| inner(*c))
    };
    name.len() <= 253 && name.split('.').all(part)
}

fn is_loose(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.len() <= 63
        && bytes
            .iter()
            .all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(c))
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
}

/// Whether this is `name` or `prefix/name`, as keys of labels and annotations are.
#[must_use]
pub fn is_qualified(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_loose(name),
        None => is_loose(key),
    }
}

/// Whether a label can have this value.
#[must_use]
pub fn is_label_value(value: &str) -> bool {
    value.is_empty() || is_loose(value)
}

/// A name with a random end.
pub(crate) fn generate(base: &str) -> String {
    let mut random = [0_u8; SUFFIX];
    // Without randomness the name is a fixed one, and a second object with it is refused.
    let _ = getrandom::fill(&mut random);
    let keep = base
        .char_indices()
        .map(|(i, _)| i)
        .take_while(|i| *i < MAX_GENERATED - SUFFIX)
        .count();
    let mut name: String = base.chars().take(keep).collect();
    name.extend(
        random
            .iter()
            .map(|r| char::from(ALPHABET[usize::from(*r) % ALPHABET.len()])),
    );
    name
}

/// A random uid (version 4).
pub(crate) fn uid() -> Result<String, getrandom::Error> {
    let mut b = [0_u8; 16];
    getrandom::fill(&mut b)?;
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    let hex: String = b.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_as_kubernetes_does() {
        assert!(
            is_label("a-1")
                && is_label("1a")
                && !is_label("")
                && !is_label("-a")
                && !is_label("a.b")
                && !is_label("A")
        );
        assert!(is_label_1035("a1") && !is_label_1035("1a"));
        assert!(is_subdomain("a.b-c.1") && !is_subdomain("a..b") && !is_subdomain("a_b"));
        assert!(
            is_qualified("app.kubernetes.io/name")
                && is_qualified("A_b")
                && !is_qualified("a/b/c")
                && !is_qualified("/b")
        );
        assert!(
            is_label_value("") && is_label_value("a.B_c") && !is_label_value("-a") && !is_label_value("a b")
        );
    }

    #[test]
    fn generated_names_keep_their_base() {
        let name = generate("web-");
        assert!(name.starts_with("web-") && name.len() == 9 && is_label(&name));
        assert_eq!(generate(&"x".repeat(90)).len(), 63);
        assert_ne!(uid().unwrap(), uid().unwrap());
    }
}
