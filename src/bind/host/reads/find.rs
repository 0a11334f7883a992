//! The words of `find` that only look: tests and what prints on standard output.

/// Words of an expression that take no word.
const ALONE: &[&str] = &[
    "-a",
    "-and",
    "-daystart",
    "-depth",
    "-empty",
    "-executable",
    "-false",
    "-follow",
    "-ignore_readdir_race",
    "-ls",
    "-mount",
    "-nogroup",
    "-noignore_readdir_race",
    "-noleaf",
    "-not",
    "-nouser",
    "-nowarn",
    "-o",
    "-or",
    "-print",
    "-print0",
    "-prune",
    "-quit",
    "-readable",
    "-true",
    "-warn",
    "-writable",
    "-xdev",
];

/// Words of an expression that take one word.
const WITH_ONE: &[&str] = &[
    "-amin",
    "-anewer",
    "-atime",
    "-cmin",
    "-cnewer",
    "-ctime",
    "-fstype",
    "-gid",
    "-group",
    "-ilname",
    "-iname",
    "-inum",
    "-ipath",
    "-iregex",
    "-iwholename",
    "-links",
    "-lname",
    "-maxdepth",
    "-mindepth",
    "-mmin",
    "-mtime",
    "-name",
    "-newer",
    "-newerat",
    "-newerct",
    "-newermt",
    "-path",
    "-perm",
    "-printf",
    "-regex",
    "-regextype",
    "-samefile",
    "-size",
    "-type",
    "-uid",
    "-used",
    "-user",
    "-wholename",
    "-xtype",
];

/// Fails with the word that is not on the list.
pub fn check(words: &[String]) -> Result<(), String> {
    let mut words = words.iter().skip_while(|word| ["-H", "-L", "-P"].contains(&word.as_str()));
    while let Some(word) = words.next() {
        if WITH_ONE.contains(&word.as_str()) {
            let value = words.next().ok_or_else(|| format!("{word} without a value"))?;
            if value.starts_with('-') && !is_amount(value) {
                return Err(format!("{word} {value}"));
            }
        } else if word.starts_with('-') && !ALONE.contains(&word.as_str()) {
            return Err(word.clone());
        }
    }
    Ok(())
}

/// `-7`, `-100M`: less than that.
fn is_amount(value: &str) -> bool {
    let digits = value[1..].trim_end_matches(|c: char| c.is_ascii_alphabetic());
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) && value.len() - digits.len() <= 2
}
