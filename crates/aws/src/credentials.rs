// SPDX-License-Identifier: Apache-2.0
//! Who asks: keys from the environment, or from a profile in the files that the command line of AWS writes.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// What the command line of AWS calls the profile that is meant without a name.
const DEFAULT_PROFILE: &str = "default";

/// An access key. Its secret parts are never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    id: String,
    secret: String,
    session_token: Option<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Why nobody can ask.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// Half a key.
    #[error("{set} is set and {missing} is not; set both, or neither and use a profile")]
    Half {
        /// The variable that is set.
        set: &'static str,
        /// The one that is not.
        missing: &'static str,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no key at all.
    #[error(
        "there are no credentials for AWS: AWS_ACCESS_KEY_ID is not set and {} has no profile `{profile}` with keys; \
         `aws configure export-credentials --format env` prints variables for profiles that assume a role or sign on elsewhere", file.display()
    )]
    None {
        /// The profile that was looked for.
        profile: String,
        /// Where.
        file: PathBuf,
    },
}

/// What the environment says, so that nothing here reads it.
#[derive(Clone, Default)]
pub struct Profile {
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_PROFILE`, `AWS_SHARED_CREDENTIALS_FILE`,
    /// `AWS_CONFIG_FILE`, `AWS_REGION`, `AWS_DEFAULT_REGION`, `HOME`, as far as they are set.
    pub variables: BTreeMap<String, String>,
    /// The profile that was asked for by name. Its keys then count before those of the environment.
    pub name: Option<String>,
}

/// Without values: some are secrets.
impl std::fmt::Debug for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Profile")
            .field("variables", &self.variables.keys())
            .field("name", &self.name)
            .finish()
    }
}

impl Profile {
    /// What a process was started with.
    #[must_use]
    pub fn new(variables: impl IntoIterator<Item = (String, String)>, name: Option<String>) -> Self {
        let ours = |name: &str| name == "HOME" || name.starts_with("AWS_");
        Self {
            variables: variables
                .into_iter()
                .filter(|(name, value)| ours(name) && !value.is_empty())
                .collect(),
            name,
        }
    }

    fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    fn profile(&self) -> &str {
        self.name
            .as_deref()
            .or_else(|| self.variable("AWS_PROFILE"))
            .unwrap_or(DEFAULT_PROFILE)
    }

    fn file(&self, variable: &str, name: &str) -> PathBuf {
        match self.variable(variable) {
            Some(path) => PathBuf::from(path),
            None => Path::new(self.variable("HOME").unwrap_or("/root"))
                .join(".aws")
                .join(name),
        }
    }

    /// The region of the environment or of the profile.
    ///
    /// # Errors
    /// A file is there and cannot be read.
    pub fn region(&self) -> Result<Option<String>, CredentialsError> {
        let set = self
            .variable("AWS_REGION")
            .or_else(|| self.variable("AWS_DEFAULT_REGION"));
        if let Some(region) = set {
            return Ok(Some(region.to_owned()));
        }
        let sections = read(&self.file("AWS_CONFIG_FILE", "config"))?;
        let profile = self.profile();
        let section = sections
            .get(&format!("profile {profile}"))
            .or_else(|| sections.get(profile));
        Ok(section.and_then(|section| section.get("region").cloned()))
    }

    /// The keys: of the profile that was asked for, else of the environment, else of the profile that it names.
    ///
    /// # Errors
    /// There are none, or half of them.
    pub fn credentials(&self) -> Result<Credentials, CredentialsError> {
        if self.name.is_none()
            && let Some(credentials) = self.environment()?
        {
            return Ok(credentials);
        }
        let (shared, config) = (
            self.file("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
            self.file("AWS_CONFIG_FILE", "config"),
        );
        let profile = self.profile();
        for (file, sections) in [
            (&shared, vec![profile.to_owned()]),
            (&config, vec![format!("profile {profile}"), profile.to_owned()]),
        ] {
            let found = read(file)?;
            let keys = sections.iter().find_map(|section| keys(found.get(section)?));
            if let Some(credentials) = keys {
                return Ok(credentials);
            }
        }
        Err(CredentialsError::None {
            profile: profile.to_owned(),
            file: shared,
        })
    }

    fn environment(&self) -> Result<Option<Credentials>, CredentialsError> {
        const ID: &str = "AWS_ACCESS_KEY_ID";
        const SECRET: &str = "AWS_SECRET_ACCESS_KEY";
        let token = self.variable("AWS_SESSION_TOKEN").map(str::to_owned);
        match (self.variable(ID), self.variable(SECRET)) {
            (Some(id), Some(secret)) => Ok(Some(Credentials::new(id, secret, token))),
            (None, None) => Ok(None),
            (Some(_), None) => Err(CredentialsError::Half {
                set: ID,
                missing: SECRET,
            }),
            (None, Some(_)) => Err(CredentialsError::Half {
                set: SECRET,
                missing: ID,
            }),
        }
    }
}

impl Credentials {
    /// A key, with the token that a temporary one has.
    #[must_use]
    pub fn new(id: &str, secret: &str, session_token: Option<String>) -> Self {
        Self {
            id: id.to_owned(),
            secret: secret.to_owned(),
            session_token,
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn secret(&self) -> &str {
        &self.secret
    }

    pub(crate) fn session_token(&self) -> Option<&str> {
        self.session_token.as_deref()
    }
}

type Sections = BTreeMap<String, BTreeMap<String, String>>;

/// An INI file's sections; none if there is no file.
fn read(path: &Path) -> Result<Sections, CredentialsError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Sections::new()),
        Err(source) => {
            return Err(CredentialsError::File {
                path: path.to_owned(),
                source,
            });
        }
    };
    let mut sections = Sections::new();
    let mut section = String::new();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name.trim().to_owned();
        } else if let Some((name, value)) = line.split_once('=') {
            let entries = sections.entry(section.clone()).or_default();
            entries.insert(name.trim().to_owned(), value.trim().to_owned());
        }
    }
    Ok(sections)
}

fn keys(section: &BTreeMap<String, String>) -> Option<Credentials> {
    let (id, secret) = (
        section.get("aws_access_key_id")?,
        section.get("aws_secret_access_key")?,
    );
    Some(Credentials::new(
        id,
        secret,
        section.get("aws_session_token").cloned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(variables: &[(&str, &str)], name: Option<&str>) -> Profile {
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Profile::new(variables, name.map(str::to_owned))
    }

    fn files() -> (tempfile::TempDir, String, String) {
        let directory = tempfile::tempdir().unwrap();
        let (shared, config) = (
            directory.path().join("credentials"),
            directory.path().join("config"),
        );
        std::fs::write(
            &shared,
            "# ours\n[default]\naws_access_key_id = DEFAULT\naws_secret_access_key=s1\n\n[audit]\naws_access_key_id=AUDIT\n\
             aws_secret_access_key = s2\naws_session_token = t2\n[sso]\nregion = x\n",
        )
        .unwrap();
        std::fs::write(
            &config,
            "[default]\nregion = eu-central-1\n[profile audit]\nregion=us-east-1\n[profile role]\nrole_arn = arn\n",
        )
        .unwrap();
        let paths = [&shared, &config].map(|path| path.to_str().unwrap().to_owned());
        let [shared, config] = paths;
        (directory, shared, config)
    }

    #[test]
    fn the_environment_counts_before_the_default_profile_and_a_named_profile_before_both() {
        let (_kept, shared, config) = files();
        let paths = [
            ("AWS_SHARED_CREDENTIALS_FILE", &*shared),
            ("AWS_CONFIG_FILE", &*config),
        ];
        let keys = [("AWS_ACCESS_KEY_ID", "ENV"), ("AWS_SECRET_ACCESS_KEY", "s")];
        let id = |variables: &[(&str, &str)], name| {
            profile(variables, name)
                .credentials()
                .map(|found| found.id().to_owned())
                .unwrap()
        };
        assert_eq!(id(&paths, None), "DEFAULT");
        assert_eq!(id(&[paths.as_slice(), &keys].concat(), None), "ENV");
        assert_eq!(id(&[paths.as_slice(), &keys].concat(), Some("audit")), "AUDIT");
        assert_eq!(
            id(&[paths.as_slice(), &[("AWS_PROFILE", "audit")]].concat(), None),
            "AUDIT"
        );
        let region = |name| profile(&paths, name).region().unwrap();
        assert_eq!(
            (region(None), region(Some("audit")), region(Some("role"))),
            (Some("eu-central-1".into()), Some("us-east-1".into()), None)
        );
    }

    #[test]
    fn without_keys_it_says_what_was_looked_for_and_what_to_do() {
        let (_kept, shared, config) = files();
        let paths = [
            ("AWS_SHARED_CREDENTIALS_FILE", &*shared),
            ("AWS_CONFIG_FILE", &*config),
        ];
        for name in ["role", "sso", "nobody"] {
            let error = profile(&paths, Some(name)).credentials().unwrap_err().to_string();
            assert!(
                error.contains(name) && error.contains("export-credentials"),
                "{error}"
            );
        }
        let half = profile(&[("AWS_ACCESS_KEY_ID", "x")], None).credentials();
        assert!(
            matches!(half, Err(CredentialsError::Half { missing, .. }) if missing == "AWS_SECRET_ACCESS_KEY")
        );
        let absent = profile(&[("HOME", "/nonexistent")], None).credentials();
        assert!(matches!(absent, Err(CredentialsError::None { .. })));
    }

    #[test]
    fn secrets_are_not_printed() {
        let shown = format!("{:?}", Credentials::new("ID", "hidden", Some("hidden".into())));
        assert!(shown.contains("ID") && !shown.contains("hidden"), "{shown}");
        let shown = format!("{:?}", profile(&[("AWS_SECRET_ACCESS_KEY", "hidden")], None));
        assert!(
            shown.contains("AWS_SECRET_ACCESS_KEY") && !shown.contains("hidden"),
            "{shown}"
        );
    }
}
