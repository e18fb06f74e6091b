// SPDX-License-Identifier: Apache-2.0
//! Which AWS is asked, and as whom. Only calls that read are made.

use std::ffi::OsString;

use anyhow::Context as _;
use aws::{Client, Profile, Settings};

/// Which AWS is asked, and as whom.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct AwsArgs {
    /// The profile whose keys are taken [default: the keys of the environment, else those of AWS_PROFILE]
    #[arg(help_heading = "AWS", long, value_name = "NAME")]
    aws_profile: Option<String>,
    /// Where AWS's services are, if not at their own addresses
    #[arg(help_heading = "AWS", long, value_name = "URL", env = "AWS_ENDPOINT_URL")]
    aws_endpoint: Option<String>,
}

impl AwsArgs {
    fn profile(&self) -> Profile {
        // What is no text is no setting of AWS's.
        let text =
            |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        Profile::new(std::env::vars_os().filter_map(text), self.aws_profile.clone())
    }

    /// A client of a region; without one, of the region of the environment or of the profile.
    pub(crate) fn client(&self, region: Option<&str>) -> anyhow::Result<Client> {
        let profile = self.profile();
        let region = match region {
            Some(region) => region.to_owned(),
            None => profile
                .region()?
                .context("which region? Say --region NAME, or set AWS_REGION")?,
        };
        Ok(Client::new(Settings {
            endpoint: self.aws_endpoint.clone(),
            ..Settings::new(region, profile.credentials()?)
        })?)
    }
}
