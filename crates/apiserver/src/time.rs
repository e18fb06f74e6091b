// SPDX-License-Identifier: Apache-2.0
//! Times as they stand in objects, and ages as `kubectl` shows them.

use std::time::{SystemTime, UNIX_EPOCH};

use k8s_openapi::jiff::Timestamp;

/// Now, to the second.
pub(crate) fn timestamp() -> Timestamp {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    i64::try_from(seconds)
        .ok()
        .and_then(|s| Timestamp::from_second(s).ok())
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Now, to the second, as `metav1.Time` has it.
pub(crate) fn now() -> String {
    in_seconds(0)
}

/// That many seconds from now, or the last second that can be written.
pub(crate) fn in_seconds(seconds: i64) -> String {
    let last = Timestamp::MAX.as_second();
    let second = timestamp().as_second().saturating_add(seconds).min(last);
    Timestamp::from_second(second)
        .unwrap_or(Timestamp::UNIX_EPOCH)
        .to_string()
}

/// The age column: how long ago, in the same steps as `kubectl` prints it.
pub(crate) fn age(timestamp: &str, now: Timestamp) -> String {
    match timestamp.parse::<Timestamp>() {
        Ok(then) => human(now.as_second().saturating_sub(then.as_second())),
        Err(_) => "<unknown>".into(),
    }
}

/// `duration.HumanDuration` of Kubernetes' apimachinery.
pub(crate) fn human(seconds: i64) -> String {
    let s = seconds.max(0);
    let two = |big: i64, b: char, small: i64, c: char| {
        if small == 0 {
            format!("{big}{b}")
        } else {
            format!("{big}{b}{small}{c}")
        }
    };
    let (minutes, hours, days) = (s / 60, s / 3600, s / 86_400);
    match s {
        0..120 => format!("{s}s"),
        120..600 => two(minutes, 'm', s % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, 'h', minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, 'd', hours % 24, 'h'),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => two(days / 365, 'y', days % 365, 'd'),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::human;

    #[test]
    fn ages_are_shown_in_kubectls_steps() {
        let shown = [5, 119, 125, 600, 10_800, 10_860, 172_800, 176_400, 864_000].map(human);
        assert_eq!(
            shown,
            ["5s", "119s", "2m5s", "10m", "3h", "3h1m", "2d", "2d1h", "10d"]
        );
    }
}
