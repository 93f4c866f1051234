//! A digest as words and digits, for two people on the phone.
//!
//! Eight words of 256 and six digits are 84 bits. Creating another bundle with the fingerprint of an existing one would take
//! 2^84 attempts, and reading a fingerprint takes a quarter of a minute. The maker of both bundles could create a pair with
//! the same fingerprint in about 2^42 attempts: a fingerprint shows that a bundle is the one that was sent, not that its
//! sender is honest.

use crate::oci::Digest;

/// A digest, shortened so that it can be read aloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FingerprintWords {
    pub words: [&'static str; 8],
    /// Six digits, with leading zeros.
    pub digits: String,
}

impl FingerprintWords {
    /// The first eight bytes are one word each; the next eight, as a big-endian number modulo a million, are the digits.
    pub fn of(digest: &Digest) -> FingerprintWords {
        let bytes = digest.raw();
        let word = |at: usize| WORDS[usize::from(bytes.get(at).copied().unwrap_or_default())];
        let number = bytes.iter().skip(8).take(8).fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
        FingerprintWords { words: std::array::from_fn(word), digits: format!("{:06}", number % 1_000_000) }
    }
}

impl std::fmt::Display for FingerprintWords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (first, last) = self.digits.split_at(3);
        write!(f, "{} {first} {last}", self.words.join(" "))
    }
}

/// Words that sound different and need no spelling. Their order never changes, because fingerprints are compared between
/// versions.
///
#[rustfmt::skip]
const WORDS: [&str; 256] = [
    "acorn", "actor", "agent", "album", "alley", "amber", "anchor", "angle", "ankle", "apple", "apron", "arena",
    "armor", "arrow", "atlas", "attic", "autumn", "bacon", "badge", "baker", "bamboo", "banjo", "barrel", "basil",
    "basket", "beach", "beaver", "bell", "berry", "bishop", "blanket", "bonnet", "border", "bottle", "branch",
    "bread", "bridge", "bronze", "bucket", "butter", "button", "cabin", "cactus", "camel", "candle", "canyon",
    "carbon", "carpet", "castle", "cedar", "cellar", "chain", "cherry", "chimney", "cider", "circus", "clover",
    "coffee", "comet", "copper", "coral", "cotton", "cousin", "cradle", "crayon", "cricket", "crystal", "dagger",
    "daisy", "dancer", "desert", "diamond", "dinner", "doctor", "dolphin", "donkey", "dragon", "drawer", "eagle",
    "easel", "echo", "elbow", "elder", "emerald", "engine", "envelope", "fabric", "falcon", "farmer", "feather",
    "fender", "ferry", "fiddle", "finger", "flame", "flute", "forest", "fossil", "fountain", "fridge", "galaxy",
    "garden", "garlic", "gecko", "ghost", "giant", "ginger", "glacier", "goblet", "granite", "grape", "guitar",
    "hammer", "harbor", "harvest", "hazel", "helmet", "herald", "hermit", "hockey", "honey", "hotel", "humor",
    "iceberg", "igloo", "indigo", "iron", "island", "ivory", "jacket", "jaguar", "jelly", "jewel", "jigsaw",
    "jungle", "kayak", "kettle", "kiosk", "kitten", "koala", "ladder", "lagoon", "lantern", "laurel", "lemon",
    "leopard", "lilac", "linen", "lizard", "lobster", "locket", "lumber", "magnet", "mango", "maple", "marble",
    "market", "meadow", "melon", "mirror", "monkey", "mosaic", "muffin", "museum", "mustard", "napkin", "nectar",
    "needle", "nickel", "noodle", "oasis", "ocean", "olive", "onion", "orbit", "orchid", "otter", "oven", "oyster",
    "paddle", "palace", "panda", "paper", "parrot", "pebble", "pencil", "pepper", "piano", "pigeon", "pillow",
    "planet", "plum", "pocket", "poppy", "potato", "prism", "pulley", "pumpkin", "puzzle", "quartz", "queen",
    "rabbit", "radio", "raisin", "raven", "ribbon", "river", "rocket", "saddle", "salmon", "sandal", "satin",
    "scarf", "school", "sequoia", "shadow", "shovel", "signal", "silver", "sleigh", "spider", "sponge", "squirrel",
    "stadium", "summer", "sunset", "swan", "tablet", "tailor", "teapot", "temple", "thimble", "tiger", "tomato",
    "tractor", "trumpet", "tulip", "tunnel", "turtle", "umbrella", "valley", "velvet", "violin", "volcano", "waffle",
    "walnut", "walrus", "wander", "window", "winter", "wizard", "yellow", "yogurt", "zebra", "zipper", "zodiac",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_the_same_in_every_version() {
        let wordlist = FingerprintWords::of(&Digest::sha256(b"a bundle"));
        assert_eq!(wordlist.to_string(), "ribbon magnet rabbit echo sequoia cabin puzzle garden 662 387");
        let distinct: std::collections::HashSet<_> = WORDS.iter().collect();
        assert_eq!(distinct.len(), 256, "two bytes would sound alike");
    }
}
