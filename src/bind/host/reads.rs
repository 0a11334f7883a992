//! The list of reads: which words `host.read` accepts. It names what is allowed; every other word is a change.

mod find;
mod table;

use table::{PROGRAMS, Program, RAW, Shape};

/// Ok when these words only look; else why they are not taken for that.
pub fn check(words: &[String]) -> Result<(), String> {
    let (program, rest) = words.split_first().ok_or("words is empty")?;
    let no = |word: &str| format!("{program} {word} is not on the list of reads: use host.run");
    match program.as_str() {
        name if RAW.contains(&name) => return Ok(()),
        "find" => return find::check(rest).map_err(|word| no(&word)),
        "ip" => return ip(rest).map_err(|word| no(&word)),
        // The configuration of a name: ssh connects to nothing. Its `Match exec` lines run, as at every login of this
        // account, and get the name: that must not be a shell's.
        "ssh" => {
            let is_name = |name: &str| is_plain(name.strip_prefix("ssh://").unwrap_or(name)) && !name.starts_with('-');
            let is_read = matches!(rest, [flag, name] if flag == "-G" && is_name(name));
            return if is_read { Ok(()) } else { Err("ssh is a read as `ssh -G NAME` only: use host.run".into()) };
        }
        // The words behind the container are those of `ps`.
        "docker" if rest.first().is_some_and(|verb| verb == "top") => {
            let container = rest.get(1).filter(|name| is_plain(name) && !name.starts_with('-'));
            container.ok_or_else(|| no("top without a container"))?;
            let ps = PROGRAMS.iter().find(|known| known.name == "ps").ok_or_else(|| no("top"))?;
            return arguments(ps, &rest[2..]).map_err(|word| no(&word));
        }
        _ => {}
    }
    let named = |known: &&Program| {
        let name = known.name.split(' ').count();
        words.len() >= name && known.name.split(' ').eq(words[..name].iter().map(String::as_str))
    };
    if recurses(words)
        && let Some(word) = rest.iter().find(|word| holds_devices(word))
    {
        return Err(format!("{program} would open what is below {word}, devices among it: use host.run"));
    }
    if let Some(known) = PROGRAMS.iter().find(named) {
        return arguments(known, &words[known.name.split(' ').count()..]).map_err(|word| no(&word));
    }
    let of = format!("{program} ");
    let verbs: Vec<&str> = PROGRAMS.iter().filter_map(|known| known.name.strip_prefix(&of)).collect();
    match verbs.is_empty() {
        true => Err(format!("{program} is not on the list of reads: use host.run")),
        false => Err(format!("{} ({})", no(rest.first().map_or("without a verb", String::as_str)), verbs.join(", "))),
    }
}

/// Ok for a working directory in which a file's name is not a device's, and below which these words open none.
pub fn check_dir(words: &[String], dir: &str) -> Result<(), String> {
    let inside = format!("{dir}/x");
    if is_file(&inside) && !(recurses(words) && holds_devices(dir)) {
        return Ok(());
    }
    Err(format!("{dir} holds devices, and opening one may act: use host.run"))
}

/// True for words that open every file below a folder: `grep -r`.
fn recurses(words: &[String]) -> bool {
    let is_recursive = |word: &String| match word.strip_prefix("--") {
        Some(name) => ["recursive", "dereference-recursive", "directories", "directories=recurse"].contains(&name),
        None => word.strip_prefix('-').is_some_and(|cluster| cluster.contains(['r', 'R', 'd'])),
    };
    words.first().is_some_and(|program| program == "grep") && words.iter().any(is_recursive)
}

/// True for the folders of the kernel, and for what they lie in.
fn holds_devices(folder: &str) -> bool {
    let is_of_kernel = |first: &&str| ["dev", "proc", "sys"].contains(first);
    rooted(folder).is_some_and(|parts| parts.first().is_none_or(is_of_kernel))
}

/// The names of a path, without `.` and what `..` leaves; `None` for one that stays below the working directory.
fn rooted(path: &str) -> Option<Vec<&str>> {
    if !path.starts_with('/') && path.split('/').all(|part| part != "..") {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." { parts.truncate(parts.len().saturating_sub(1)) } else { parts.push(part) }
    }
    Some(parts)
}

/// Fails with the word that is not on the list. Options may follow operands, as GNU programs take them.
fn arguments(program: &Program, words: &[String]) -> Result<(), String> {
    let mut words = words.iter().peekable();
    let (mut operands, mut seen) = (Vec::new(), String::new());
    while let Some(word) = words.next() {
        if word == "--" {
            operands.extend(words.by_ref());
        } else if let Some(option) = word.strip_prefix("--") {
            let (name, value) = option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
            let takes = long(program, name).ok_or(word)?;
            let value = match (takes, value) {
                ('=', None) => words.next().map(String::as_str).filter(|value| is_apart(value)).ok_or(word)?.into(),
                ('-', Some(_)) => return Err(word.into()),
                (_, value) => value,
            };
            if !value.is_none_or(|value| fits(program.value, value)) {
                return Err(word.into());
            }
        } else if let Some(cluster) = word.strip_prefix('-').filter(|cluster| !cluster.is_empty()) {
            if program.short.contains('#') && cluster.bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            for (at, letter) in cluster.char_indices() {
                let takes = short(program, letter).ok_or(word)?;
                seen.push(letter);
                let joined = &cluster[at + letter.len_utf8()..];
                let value = match takes {
                    '-' => continue,
                    ':' if joined.is_empty() => words.next().map(String::as_str).filter(|value| is_apart(value)),
                    '~' if joined.is_empty() => {
                        words.next_if(|next| is_number(next));
                        break;
                    }
                    _ => Some(joined),
                };
                if !fits(program.value, value.ok_or(word)?) {
                    return Err(word.into());
                }
                break;
            }
        } else {
            operands.push(word);
        }
    }
    if program.needs.is_some_and(|needed| !seen.contains(needed)) {
        return Err("without -l".into());
    }
    these(program.operand, &operands)
}

/// `-` for an option without a value; else the mark behind it.
fn short(program: &Program, letter: char) -> Option<char> {
    if !letter.is_ascii_alphanumeric() {
        return None;
    }
    let rest = program.short.split_once(letter)?.1;
    Some(rest.chars().next().filter(|mark| ":?~".contains(*mark)).unwrap_or('-'))
}

fn long(program: &Program, name: &str) -> Option<char> {
    let is_it = |known: &&str| known.trim_end_matches(['=', '?']) == name;
    let known = program.long.split_whitespace().find(is_it);
    let everywhere = ["help", "version"].contains(&name) && !program.name.contains(' ');
    let mark = known.map(|known| known.chars().last().filter(|mark| "=?".contains(*mark)).unwrap_or('-'));
    mark.or(everywhere.then_some('-'))
}

/// A value that stands apart must not be an option for a program that takes no value there.
fn is_apart(value: &str) -> bool {
    !value.starts_with('-') || value == "-" || is_number(value)
}

fn is_number(word: &str) -> bool {
    let digits = word.strip_prefix('-').unwrap_or(word);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn these(shape: Shape, operands: &[&String]) -> Result<(), String> {
    let first = |known: &[&str]| operands.first().is_some_and(|first| known.contains(&first.as_str()));
    let bad = match shape {
        Shape::First(known) | Shape::MaybeFirst(known) if first(known) => None,
        Shape::First(_) => Some(operands.first().map_or("without a word", |word| word.as_str())),
        Shape::OneFile | Shape::Format if operands.len() > 1 => Some(operands[1].as_str()),
        _ => operands.iter().find(|word| !fits(shape, word)).map(|word| word.as_str()),
    };
    bad.map_or(Ok(()), |word| Err(word.into()))
}

fn fits(shape: Shape, word: &str) -> bool {
    match shape {
        Shape::Any => true,
        Shape::None | Shape::First(_) | Shape::MaybeFirst(_) => false,
        Shape::File | Shape::OneFile => is_file(word),
        Shape::Untagged => is_file(word) && !word.contains('='),
        Shape::Plain => is_plain(word),
        Shape::Format => word.starts_with('+'),
    }
}

fn is_plain(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._:@/,+-".contains(c);
    !word.is_empty() && word.chars().all(plain) && !word.contains("..") && !word.contains("://")
}

/// False for a device and for what the kernel hands out once: opening a watchdog arms it, reading `kmsg` consumes it.
fn is_file(word: &str) -> bool {
    let Some(parts) = rooted(word) else { return true };
    match parts.as_slice() {
        ["dev", "full" | "null" | "random" | "stdin" | "urandom" | "zero"] | ["dev", "shm", _, ..] => true,
        ["dev", ..] => false,
        ["proc", rest @ ..] => !rest.iter().any(|part| ["kmsg", "cwd", "fd", "map_files", "root"].contains(part)),
        ["sys", rest @ ..] => !rest.iter().any(|part| part.starts_with("trace_pipe")),
        _ => true,
    }
}

/// `ip` takes abbreviated verbs, so only the whole word `show` and its twins are one; options are those of its output.
fn ip(words: &[String]) -> Result<(), String> {
    const OPTIONS: &[&str] = &[
        "-4",
        "-6",
        "-s",
        "-stats",
        "-statistics",
        "-d",
        "-details",
        "-o",
        "-oneline",
        "-br",
        "-brief",
        "-j",
        "-json",
        "-p",
        "-pretty",
    ];
    const OBJECTS: &[&str] =
        &["a", "addr", "address", "l", "link", "r", "route", "n", "neigh", "neighbour", "ru", "rule"];
    let mut words = words.iter().skip_while(|word| OPTIONS.contains(&word.as_str()));
    let object = words.next().ok_or("without an object")?;
    if !OBJECTS.contains(&object.as_str()) {
        return Err(object.into());
    }
    match words.next() {
        None => Ok(()),
        Some(verb) if ["show", "list", "ls"].contains(&verb.as_str()) => {
            words.find(|word| !is_plain(word) || word.starts_with('-')).map_or(Ok(()), |word| Err(word.into()))
        }
        Some(verb) => Err(format!("{object} {verb}")),
    }
}

#[cfg(test)]
mod attack;
#[cfg(test)]
mod tests;
