// SPDX-License-Identifier: Apache-2.0
//! The book's table of checks is what the checks are. `UPDATE=1` writes it.

use std::path::Path;

use thalweg_doctor::checks;

const BEGIN: &str = "<!-- checks -->\n";
const END: &str = "<!-- /checks -->";

#[test]
fn the_books_table_of_checks_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/book/doctor.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page
        .split_once(BEGIN)
        .expect("the page marks where the table begins");
    let (_, after) = rest.split_once(END).expect("the page marks where the table ends");
    let current = format!("{before}{BEGIN}{}{END}{after}", table());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &current).unwrap();
    }
    let page = std::fs::read_to_string(&path).unwrap();
    assert!(
        page == current,
        "docs/book/doctor.md is not current; UPDATE=1 writes it"
    );
}

fn table() -> String {
    let mut table = "| check | trap | what it finds | why it matters |\n|---|---:|---|---|\n".to_owned();
    for check in checks::all() {
        let trap = check.trap.map(|trap| trap.to_string()).unwrap_or_default();
        table.push_str(&format!(
            "| `{}` | {trap} | {} | {} |\n",
            check.id, check.title, check.why
        ));
    }
    table
}
