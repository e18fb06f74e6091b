// SPDX-License-Identifier: Apache-2.0
//! Each file that the fuzzer kept, once more.

use std::fs;
use std::path::{Path, PathBuf};

use thalweg_tests_fuzz::TARGETS;

#[test]
fn every_kept_input_is_still_handled() {
    for target in TARGETS {
        let files = corpus(target.name);
        assert!(!files.is_empty(), "{}: no seeds", target.name);
        for file in files {
            println!("{}", file.display());
            (target.run)(&fs::read(&file).unwrap());
        }
    }
}

#[test]
fn every_corpus_has_its_target() {
    for entry in fs::read_dir(corpora()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            TARGETS.iter().any(|target| target.name == name),
            "fuzz/corpus/{name} belongs to no target"
        );
    }
}

fn corpora() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus")
}

fn corpus(target: &str) -> Vec<PathBuf> {
    let dir =
        fs::read_dir(corpora().join(target)).unwrap_or_else(|error| panic!("fuzz/corpus/{target}: {error}"));
    let mut files: Vec<PathBuf> = dir.flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}
