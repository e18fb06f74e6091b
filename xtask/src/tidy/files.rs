// SPDX-License-Identifier: Apache-2.0
//! Rules for each file: licence line, length, names, words that must not stay.

const WARN_LINES: usize = 800;
const MAX_LINES: usize = 1200;

/// Files that may be longer, each with its reason.
const LONG_ALLOWED: [(&str, &str); 0] = [];

const SPDX: &str = "SPDX-License-Identifier: ";
/// The licence line is among the first lines: a script has another before it.
const SPDX_WITHIN_LINES: usize = 3;
const LICENSE: &str = "Apache-2.0";
const KERNEL_LICENSE: &str = "GPL-2.0-only OR Apache-2.0";
/// Where the eBPF programs are, and what they share with user space.
const KERNEL_SIDE: [&str; 2] = ["ebpf/", "crates/datapath-common/"];

/// A module is named after what it holds.
const BANNED_NAMES: [&str; 6] = ["common", "helper", "helpers", "misc", "util", "utils"];

/// Put together here, so that this file does not trip over itself.
const UNFINISHED: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];
const MACHINE_PATHS: [&str; 4] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/tm", "p/s/"),
];

/// Files that quote what the rules forbid, each with its reason.
const QUOTES_ALLOWED: [(&str, &str); 4] = [
    (
        "crates/platform/src/render/gitops.rs",
        "where GKE's nodes keep plugins",
    ),
    ("crates/platform/testdata/render/", "the same, rendered"),
    ("LICENSES/", "texts that are not ours"),
    ("Cargo.lock", "written by cargo"),
];

/// The breaches of one file.
pub(super) fn check(path: &str, text: &str) -> Vec<String> {
    let mut breaches = Vec::new();
    breaches.extend(spdx(path, text));
    breaches.extend(too_long(path, text));
    breaches.extend(banned_name(path));
    if !QUOTES_ALLOWED
        .iter()
        .any(|(allowed, _)| path.starts_with(allowed))
    {
        breaches.extend(banned_words(path, text));
    }
    breaches
}

/// What is not yet a breach.
pub(super) fn warn(path: &str, text: &str) -> Option<String> {
    let lines = text.lines().count();
    let long = is_source(path) && lines > WARN_LINES && lines <= MAX_LINES;
    long.then(|| format!("{path}: {lines} lines; {MAX_LINES} are the limit"))
}

fn is_source(path: &str) -> bool {
    path.ends_with(".rs") || path.ends_with(".sh") || path == "dev" || path == ".ci/run"
}

fn spdx(path: &str, text: &str) -> Option<String> {
    if !is_source(path) {
        return None;
    }
    let expected = if KERNEL_SIDE.iter().any(|dir| path.starts_with(dir)) {
        KERNEL_LICENSE
    } else {
        LICENSE
    };
    let mut first = text.lines().take(SPDX_WITHIN_LINES);
    let found = first
        .find_map(|line| line.split_once(SPDX))
        .map(|(_, licence)| licence.trim());
    match found {
        Some(licence) if licence == expected => None,
        Some(licence) => Some(format!(
            "{path}: licence line says `{licence}`, here it is `{expected}`"
        )),
        None => Some(format!("{path}: no line `{SPDX}{expected}` at the top")),
    }
}

fn too_long(path: &str, text: &str) -> Option<String> {
    let lines = text.lines().count();
    let allowed = LONG_ALLOWED.iter().any(|(long, _)| *long == path);
    let breach = is_source(path) && lines > MAX_LINES && !allowed;
    breach.then(|| format!("{path}: {lines} lines, the limit is {MAX_LINES}: split it"))
}

fn banned_name(path: &str) -> Option<String> {
    if !path.ends_with(".rs") {
        return None;
    }
    let mut parts = path.trim_end_matches(".rs").split('/');
    let banned = parts.find(|part| BANNED_NAMES.contains(part))?;
    Some(format!(
        "{path}: `{banned}` does not say what is in it; name the module after its subject"
    ))
}

fn banned_words(path: &str, text: &str) -> Vec<String> {
    let mut breaches = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let place = format!("{path}:{}", number + 1);
        if let Some(word) = UNFINISHED.iter().find(|word| line.contains(**word)) {
            breaches.push(format!("{place}: {word}: do it, or write an issue"));
        }
        if let Some(path) = MACHINE_PATHS.iter().find(|path| line.contains(**path)) {
            breaches.push(format!("{place}: {path} is a path of one machine"));
        }
    }
    breaches
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "// SPDX-License-Identifier: Apache-2.0\n";

    fn lines(count: usize) -> String {
        format!("{HEAD}{}", "//\n".repeat(count - 1))
    }

    #[test]
    fn a_plain_file_is_in_order() {
        assert_eq!(check("crates/model/src/lib.rs", HEAD), Vec::<String>::new());
    }

    #[test]
    fn a_file_without_a_licence_line_is_a_breach() {
        assert_eq!(check("a.rs", "fn main() {}\n").len(), 1);
    }

    #[test]
    fn a_script_has_its_licence_line_below_the_interpreter() {
        assert_eq!(
            check(
                "dev",
                "#!/usr/bin/env bash\n# SPDX-License-Identifier: Apache-2.0\n"
            ),
            Vec::<String>::new()
        );
    }

    #[test]
    fn the_kernel_side_has_a_licence_of_its_own() {
        assert_eq!(check("ebpf/datapath/src/lib.rs", HEAD).len(), 1);
        let head = "// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0\n";
        assert_eq!(check("ebpf/datapath/src/lib.rs", head), Vec::<String>::new());
    }

    #[test]
    fn a_long_file_is_warned_of_and_a_longer_one_refused() {
        assert_eq!(warn("a.rs", &lines(WARN_LINES)), None);
        assert!(warn("a.rs", &lines(WARN_LINES + 1)).is_some());
        assert_eq!(check("a.rs", &lines(MAX_LINES)), Vec::<String>::new());
        assert_eq!(check("a.rs", &lines(MAX_LINES + 1)).len(), 1);
    }

    #[test]
    fn a_module_is_not_called_utils() {
        assert_eq!(check("crates/a/src/utils.rs", HEAD).len(), 1);
        assert_eq!(check("crates/a/src/helpers/mod.rs", HEAD).len(), 1);
        assert_eq!(
            check(
                "crates/datapath-common/src/ct.rs",
                &HEAD.replace("Apache", "GPL-2.0-only OR Apache")
            ),
            Vec::<String>::new()
        );
    }

    #[test]
    fn unfinished_work_is_not_left_in_comments() {
        let text = format!("{HEAD}// {}: later\n", UNFINISHED[0]);
        assert_eq!(
            check("a.rs", &text),
            [format!("a.rs:2: {}: do it, or write an issue", UNFINISHED[0])]
        );
    }

    #[test]
    fn a_path_of_one_machine_is_a_breach() {
        assert_eq!(
            check("README.md", &format!("see {}x\n", MACHINE_PATHS[0])).len(),
            1
        );
    }
}
