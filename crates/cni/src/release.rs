// SPDX-License-Identifier: Apache-2.0
//! The plugin's release, as its file says it: the agent looks there and need not run a program of the node's.

const NAME: &str = "thalweg-cni ";
const END: &str = ": a CNI plugin";

/// The line that the plugin prints about itself, and by which [`release_of`] knows its file.
pub const ABOUT: &str = concat!("thalweg-cni ", env!("CARGO_PKG_VERSION"), ": a CNI plugin");
/// A release's name is never longer.
const MAX_RELEASE: usize = 64;

/// The release of a plugin's file; nothing when it is another program.
#[must_use]
pub fn release_of(file: &[u8]) -> Option<&str> {
    let mut rest = file;
    loop {
        let at = rest
            .windows(END.len())
            .position(|window| window == END.as_bytes())?;
        if let Some(release) = before(&rest[..at]) {
            return Some(release);
        }
        rest = &rest[at + END.len()..];
    }
}

fn before(bytes: &[u8]) -> Option<&str> {
    let tail = &bytes[bytes.len().saturating_sub(NAME.len() + MAX_RELEASE)..];
    let begin = tail
        .windows(NAME.len())
        .rposition(|window| window == NAME.as_bytes())?;
    let release = std::str::from_utf8(&tail[begin + NAME.len()..]).ok()?;
    let is_release = !release.is_empty() && release.bytes().all(|byte| byte.is_ascii_graphic());
    is_release.then_some(release)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_its_release() {
        assert_eq!(release_of(ABOUT.as_bytes()), Some(env!("CARGO_PKG_VERSION")));
        let file = [
            &b"\x7fELF thalweg-cni \0: a CNI plugin\0thalweg-cni "[..],
            b"9.8.7-rc.1: a CNI plugin (",
        ]
        .concat();
        assert_eq!(release_of(&file), Some("9.8.7-rc.1"));
    }

    #[test]
    fn other_files_say_none() {
        for file in [
            &b""[..],
            b": a CNI plugin",
            b"thalweg-cni",
            b"bridge 1.0: a CNI plugin",
        ] {
            assert_eq!(release_of(file), None);
        }
    }
}
