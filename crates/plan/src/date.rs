// SPDX-License-Identifier: Apache-2.0
//! Calendar dates, as far as dated data needs them.

use std::fmt;
use std::str::FromStr;

/// A day of the Gregorian calendar, written `YYYY-MM-DD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date {
    year: u16,
    month: u8,
    day: u8,
}

/// Text that is no date.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no date; write YYYY-MM-DD")]
pub struct DateError(pub String);

impl Date {
    /// A date, if there is such a day.
    #[must_use]
    pub fn new(year: u16, month: u8, day: u8) -> Option<Self> {
        let longest = match month {
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            4 | 6 | 9 | 11 => 30,
            2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
            2 => 28,
            _ => return None,
        };
        (year > 0 && (1..=longest).contains(&day)).then_some(Self { year, month, day })
    }

    /// The day that contains a moment, given in seconds since 1970-01-01 UTC. Follows the usual conversion of day
    /// numbers with years that begin in March.
    #[must_use]
    pub fn from_unix_seconds(seconds: u64) -> Self {
        let days = seconds / 86_400 + 719_468;
        let era = days / 146_097;
        let day_of_era = days % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        Self {
            year: u16::try_from(year).unwrap_or(u16::MAX),
            month: u8::try_from(month).unwrap_or(1),
            day: u8::try_from(day).unwrap_or(1),
        }
    }

    /// Whole months from this day to `later`; 0 when `later` is earlier.
    #[must_use]
    pub fn months_until(self, later: Self) -> u32 {
        let count = |date: Self| u32::from(date.year) * 12 + u32::from(date.month);
        let months = count(later).saturating_sub(count(self));
        months.saturating_sub(u32::from(later.day < self.day))
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

impl FromStr for Date {
    type Err = DateError;

    fn from_str(text: &str) -> Result<Self, DateError> {
        let mut parts = text.splitn(3, '-');
        let mut part = |width: usize| {
            let digits = parts.next()?;
            (digits.len() == width && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(digits)
        };
        let mut date = || {
            let (year, month, day) = (part(4)?, part(2)?, part(2)?);
            Self::new(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?)
        };
        date().ok_or_else(|| DateError(text.to_owned()))
    }
}

impl serde::Serialize for Date {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_days_that_exist_are_dates() {
        for bad in [
            "2026-02-29",
            "2026-13-01",
            "2026-1-01",
            "26-01-01",
            "2026-01",
            "",
            "2026-01-01x",
        ] {
            assert!(bad.parse::<Date>().is_err(), "{bad}");
        }
        assert!("2024-02-29".parse::<Date>().is_ok());
    }

    #[test]
    fn seconds_become_days() {
        for (seconds, day) in [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (1_786_406_399, "2026-08-10"),
            (1_786_406_400, "2026-08-11"),
        ] {
            assert_eq!(Date::from_unix_seconds(seconds).to_string(), day);
        }
    }

    #[test]
    fn a_month_is_full_on_its_day() {
        let date = |text: &str| text.parse::<Date>().unwrap();
        assert_eq!(date("2026-08-11").months_until(date("2026-09-10")), 0);
        assert_eq!(date("2026-08-11").months_until(date("2026-09-11")), 1);
        assert_eq!(date("2026-08-11").months_until(date("2027-08-11")), 12);
        assert_eq!(date("2027-08-11").months_until(date("2026-08-11")), 0);
    }
}
