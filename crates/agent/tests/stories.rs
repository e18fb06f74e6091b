// SPDX-License-Identifier: Apache-2.0
//! Stories: Kubernetes objects in, tables, routes and readiness out. Each file of `testdata/` is one.
//!
//! A story is a list of sections. `-- apply --` holds YAML documents and `-- delete --` names objects; both are seen by
//! the real watches through a small fake of the API. `-- expect --` holds what is then the case. `-- node --` says which
//! node we are on and which devices it has. With `UPDATE=1` the expectations are written instead of compared.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "story/api.rs"]
mod api;
#[path = "story/format.rs"]
mod format;
#[path = "story/world.rs"]
mod world;

use std::fs;
use std::path::{Path, PathBuf};

use format::{Section, parse, render};
use world::World;

#[test]
fn every_story_ends_as_it_says() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut files: Vec<PathBuf> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "txtar"));
    files.sort();
    assert!(!files.is_empty(), "no stories in {}", dir.display());
    let update = std::env::var_os("UPDATE").is_some();
    let wrong: Vec<String> = files.iter().filter_map(|file| tell(file, update)).collect();
    assert!(
        wrong.is_empty(),
        "{}\nUPDATE=1 writes what is the case",
        wrong.join("\n")
    );
}

/// What is wrong with a story, if anything.
fn tell(file: &Path, update: bool) -> Option<String> {
    let text = fs::read_to_string(file).unwrap();
    let (title, sections) = parse(&text);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let told = runtime.block_on(act(sections));
    let told = render(title, &told);
    if update {
        fs::write(file, &told).unwrap();
        return None;
    }
    (told != text).then(|| format!("{}:\n{}", file.display(), difference(&text, &told)))
}

async fn act(sections: Vec<Section>) -> Vec<Section> {
    let mut world = None;
    let mut told = Vec::new();
    for mut section in sections {
        match (section.name.as_str(), &mut world) {
            ("node", world) => *world = Some(World::begin(&section.text)),
            ("apply", Some(world)) => world.apply(&section.text).await,
            ("delete", Some(world)) => world.delete(&section.text).await,
            ("expect", Some(world)) => section.text = world.dump(),
            (other, _) => panic!("a section {other:?} is not known here; a story begins with -- node --"),
        }
        told.push(section);
    }
    told
}

fn difference(expected: &str, told: &str) -> String {
    let (expected, told): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), told.lines().collect());
    let gone = expected
        .iter()
        .filter(|line| !told.contains(line))
        .map(|line| format!("  - {line}"));
    let new = told
        .iter()
        .filter(|line| !expected.contains(line))
        .map(|line| format!("  + {line}"));
    gone.chain(new).collect::<Vec<_>>().join("\n")
}
