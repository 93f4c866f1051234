//! Formats and parses bytes and times.

use std::time::Duration;

/// `0 B`, `512 B`, `1.5 KiB`, `20.0 GiB`: units of 1024.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would print as 1024.0 of the smaller unit.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `1 image`, `3 images`.
pub fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// `volume 3`, `volumes 3, 5`; at most 20 of them.
pub fn volumes(numbers: &[u32]) -> String {
    let list: Vec<String> = numbers.iter().take(20).map(u32::to_string).collect();
    let more = numbers.len().saturating_sub(20);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("volume{} {}{more}", if numbers.len() == 1 { "" } else { "s" }, list.join(", "))
}

/// `0.4 s`, `12.0 s`, `3 min 5 s`, `2 h 10 min`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// Parses a size: `100`, `20kB`, `1.5GiB`. kB, MB, GB, TB are powers of 1000; KiB, MiB, GiB, TiB are powers of 1024.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" | "k" => 1000,
        "mb" | "m" => 1_000_000,
        "gb" | "g" => 1_000_000_000,
        "tb" | "t" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        other => return Err(format!("unknown unit {other:?}: use B, kB, MB, GB, TB, KiB, MiB, GiB or TiB")),
    };
    let value: f64 = number.parse().map_err(|_| format!("{number:?} is not a number"))?;
    let bytes = value * factor as f64;
    if bytes >= i64::MAX as f64 { Err(format!("{text:?} is too much")) } else { Ok(bytes as u64) }
}

/// Parses a time: `90` and `90s` are seconds; also `10m`, `6h`, `1d`, `1h30m`; at most a year.
///
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const LONGEST: u64 = 365 * 24 * 3600;
    let fail = || format!("{text:?} is not a time: write 90s, 10m, 6h, 1d or 1h30m");
    let mut rest = text.trim();
    let mut seconds: u64 = 0;
    while !rest.is_empty() || text.trim().is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, unit) = rest.split_at(digits);
        let end = unit.find(|c: char| c.is_ascii_digit()).unwrap_or(unit.len());
        let (unit, after) = unit.split_at(end);
        let factor = match unit.trim() {
            "" | "s" => 1,
            "m" | "min" => 60,
            "h" => 3600,
            "d" => 24 * 3600,
            _ => return Err(fail()),
        };
        let part = number.parse::<u64>().map_err(|_| fail())?.saturating_mul(factor);
        seconds = seconds.saturating_add(part);
        rest = after;
    }
    if seconds > LONGEST { Err(format!("{text:?} is more than a year")) } else { Ok(Duration::from_secs(seconds)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well_at_every_border() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (6 << 30, "6.0 GiB"),
            (u64::MAX, "16384.0 PiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn sizes_and_times_are_read_as_people_write_them() {
        assert_eq!(parse_bytes("1.5GiB"), Ok(3 << 29));
        assert_eq!(parse_bytes("10 GB"), Ok(10_000_000_000));
        assert_eq!(parse_bytes("7"), Ok(7));
        for (text, seconds) in
            [("0", 0), ("90", 90), ("90s", 90), ("10m", 600), ("6h", 21600), ("1h30m", 5400), ("2 d", 172_800)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for wrong in ["", " ", "h", "-1", "1.5h", "6 hours", "400d", "99999999999999999999", "99999999999999999d"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "x", "5 potatoes", "1e99", "-1", "99999999TiB"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }
}
