// SPDX-License-Identifier: Apache-2.0
//! What tests begin with.

use std::sync::LazyLock;

use crate::address::{self, Addresses};
use crate::catalogue::Catalogue;
use crate::file::Platform;

static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| Catalogue::shipped().unwrap());

pub(crate) fn catalogue() -> &'static Catalogue {
    &CATALOGUE
}

pub(crate) fn parsed(text: &str) -> Platform {
    Platform::parse(text, catalogue()).unwrap_or_else(|refused| panic!("{refused}"))
}

pub(crate) fn planned(text: &str) -> (Platform, Addresses) {
    let platform = parsed(text);
    let addresses = address::plan(&platform, catalogue()).unwrap_or_else(|refused| panic!("{refused}"));
    (platform, addresses)
}
