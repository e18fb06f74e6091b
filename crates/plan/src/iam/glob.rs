// SPDX-License-Identifier: Apache-2.0
//! Patterns with `*` and `?`, and policy variables in them.

use super::condition::Context;

/// A character of a pattern, or what stands for some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Literal(char),
    /// `?`
    One,
    /// `*`
    Many,
}

/// A pattern with its variables replaced; what a variable brings in is literal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Token>);

fn tokens(text: &str) -> impl Iterator<Item = Token> + '_ {
    text.chars().map(|character| match character {
        '*' => Token::Many,
        '?' => Token::One,
        other => Token::Literal(other),
    })
}

/// Replaces `${key}` by the key's value, and `${*}`, `${?}`, `${$}` by the characters themselves.
///
/// # Errors
/// The variable that has no single known value.
pub(super) fn substitute(text: &str, context: &Context) -> Result<Pattern, String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let (before, after) = rest.split_at(start);
        found.extend(tokens(before));
        let Some(end) = after.find('}') else {
            return Err(after.to_owned());
        };
        let (variable, behind) = after.split_at(end + 1);
        let key = variable.trim_start_matches("${").trim_end_matches('}');
        match key {
            "*" | "?" | "$" => found.extend(key.chars().map(Token::Literal)),
            // `${key, 'default'}`
            key => {
                let (name, default) = key
                    .split_once(',')
                    .map_or((key, None), |(name, rest)| (name, Some(rest)));
                let value = match (context.get(name.trim()), default) {
                    (Some([one]), _) => one.clone(),
                    (Some([]), Some(default)) => default.trim().trim_matches('\'').to_owned(),
                    _ => return Err(variable.to_owned()),
                };
                found.extend(value.chars().map(Token::Literal));
            }
        }
        rest = behind;
    }
    found.extend(tokens(rest));
    Ok(Pattern(found))
}

impl Pattern {
    /// A pattern without variables.
    pub(super) fn plain(text: &str) -> Self {
        Self(tokens(text).collect())
    }

    /// The pattern as text, for comparisons that know no wildcards.
    pub(super) fn literal(&self) -> String {
        let text = self.0.iter().map(|token| match token {
            Token::Literal(character) => *character,
            Token::One => '?',
            Token::Many => '*',
        });
        text.collect()
    }

    /// Whether all of the text matches. Takes time in proportion to the product of both lengths at most.
    pub(super) fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        let (mut token, mut place) = (0, 0);
        // Where to go on when a later part fails: after the last `*`, one character further.
        let mut retry: Option<(usize, usize)> = None;
        while place < text.len() {
            match (self.0.get(token), text.get(place)) {
                (Some(Token::Many), _) => {
                    retry = Some((token + 1, place));
                    token += 1;
                }
                (Some(Token::Literal(wanted)), Some(found)) if wanted == found => {
                    token += 1;
                    place += 1;
                }
                (Some(Token::One), _) => {
                    token += 1;
                    place += 1;
                }
                _ => {
                    let Some((after, from)) = retry else { return false };
                    retry = Some((after, from + 1));
                    (token, place) = (after, from + 1);
                }
            }
        }
        self.0.iter().skip(token).all(|token| *token == Token::Many)
    }

    /// Whether an ARN matches, each of its six parts for itself.
    pub(super) fn matches_arn(&self, arn: &str) -> bool {
        let wanted = self.parts();
        let found: Vec<&str> = arn.splitn(6, ':').collect();
        wanted.len() == 6
            && found.len() == 6
            && wanted
                .iter()
                .zip(found)
                .all(|(pattern, part)| pattern.matches(part))
    }

    fn parts(&self) -> Vec<Self> {
        let parts = self.0.splitn(6, |token| *token == Token::Literal(':'));
        parts.map(|part| Self(part.to_vec())).collect()
    }
}
