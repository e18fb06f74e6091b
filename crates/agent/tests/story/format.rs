// SPDX-License-Identifier: Apache-2.0
//! The file format of stories: a title, then sections that begin with `-- name --`.

pub(crate) struct Section {
    pub(crate) name: String,
    pub(crate) text: String,
}

pub(crate) fn parse(text: &str) -> (&str, Vec<Section>) {
    let first = text.find("-- ").unwrap();
    let mut sections: Vec<Section> = Vec::new();
    for line in text[first..].lines() {
        match (
            line.strip_prefix("-- ").and_then(|rest| rest.strip_suffix(" --")),
            sections.last_mut(),
        ) {
            (Some(name), _) => sections.push(Section {
                name: name.to_owned(),
                text: String::new(),
            }),
            (None, Some(section)) => section.text += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    (&text[..first], sections)
}

pub(crate) fn render(title: &str, sections: &[Section]) -> String {
    let sections = sections
        .iter()
        .map(|section| format!("-- {} --\n{}", section.name, section.text));
    title.to_owned() + &sections.collect::<String>()
}
