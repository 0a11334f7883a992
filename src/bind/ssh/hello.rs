//! Everything about the hello with which our `sh` answers before opsh sends it a word.
//!
//! sshd hands the command line to the account's login shell, whose start-up files run first. One that ends in `exec fish`
//! or `sudo -i` throws the command line away and reads stdin as commands. So opsh sends no data before it has read a
//! line that only our `sh` can have made: the command line holds a nonce in two halves, and the hello has them joined
//! in the other order. Whoever prints the command line, or the words of a process, has not said hello.

use super::channel::{Channel, Reader};
use super::records::nonce;
use crate::redact;
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// Time that a login's start-up files may take. It counts within the deadline of the effect.
pub const START_WITHIN: Duration = Duration::from_secs(20);
/// Bytes that start-up files may print to one output before the hello.
const NOISE_READ: usize = 1 << 20;
/// Bytes of it that are kept, to explain why there was no hello.
const NOISE_KEPT: usize = 400;
/// The exit status comes with the end of the outputs; a server that never sends one must not hang us.
const STATUS_WITHIN: Duration = Duration::from_secs(3);

/// One hello that is waited for.
pub struct Hello {
    halves: [String; 2],
}

/// Why there was no hello, with what was printed in its place.
pub struct Silence {
    how: How,
    noise: String,
}

enum How {
    /// The outputs ended.
    Ended,
    /// Nothing ended, and the time is over.
    Late(Duration),
    /// The login prints without end.
    Loud,
}

impl Hello {
    pub fn new() -> Result<Hello, String> {
        let whole = nonce()?;
        let (first, second) = whole.split_at(whole.len() / 2);
        Ok(Hello { halves: [first.into(), second.into()] })
    }

    /// The words of the command line that ask for it.
    pub fn words(&self) -> &[String; 2] {
        &self.halves
    }

    fn line(&self) -> Vec<u8> {
        let [first, second] = &self.halves;
        format!("\u{1e}opsh {second}{first} hello\n").into_bytes()
    }

    /// Reads up to the hello. What start-up files print before it is left out.
    pub async fn heard(&self, channel: &mut Channel, within: Duration) -> Result<(), Silence> {
        let line = self.line();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let heard = {
            let Channel { stdout, stderr, .. } = channel;
            let heard = async {
                tokio::select! {
                    how = until(stdout, &mut out, Some(&line)) => how,
                    // Read, too: a start-up file that fills this pipe would wait for ever.
                    how = async {
                        match until(stderr, &mut err, None).await {
                            Some(How::Loud) => Some(How::Loud),
                            // The other output tells.
                            _ => std::future::pending().await,
                        }
                    } => how,
                }
            };
            tokio::time::timeout(within, heard).await
        };
        let how = match heard {
            Ok(None) => return Ok(()),
            Ok(Some(how)) => how,
            Err(_) => How::Late(within),
        };
        if matches!(how, How::Ended) {
            // Its complaint may be on its way.
            let _ = tokio::time::timeout(STATUS_WITHIN, until(&mut channel.stderr, &mut err, None)).await;
        }
        Err(Silence { how, noise: shown(&err).or_else(|| shown(&out)).unwrap_or_default() })
    }
}

/// Reads until `line` has come, which gives `None`, or cannot come any more.
async fn until(reader: &mut Reader, read: &mut Vec<u8>, line: Option<&[u8]>) -> Option<How> {
    let mut piece = vec![0; 4096];
    while let Ok(n @ 1..) = reader.read(&mut piece).await {
        // The line may have begun in the piece before.
        let from = read.len().saturating_sub(line.map_or(0, <[u8]>::len));
        read.extend_from_slice(&piece[..n]);
        if line.is_some_and(|line| read[from..].windows(line.len()).any(|window| window == line)) {
            return None;
        }
        if read.len() > NOISE_READ {
            return Some(How::Loud);
        }
    }
    Some(How::Ended)
}

fn shown(noise: &[u8]) -> Option<String> {
    let text = redact::read_to(noise, NOISE_KEPT);
    let text = text.trim().replace('\n', " / ");
    let plain: String = text.chars().filter(|c| !c.is_control()).collect();
    (!plain.is_empty()).then_some(plain)
}

impl Silence {
    /// Whether the channel ended, which a lost link explains.
    pub fn ended(&self) -> bool {
        matches!(self.how, How::Ended)
    }

    /// The reason, in words.
    pub async fn why(self, channel: &mut Channel) -> String {
        let Silence { how, noise } = self;
        let (noise, look) = (if noise.is_empty() { noise } else { format!(": {noise}") }, LOOK_AT);
        match how {
            How::Ended => match tokio::time::timeout(STATUS_WITHIN, channel.wait()).await.ok().flatten() {
                Some(code) => format!("the login did not run a supervising sh (exit status {code}){noise}"),
                None => format!("the login ended before it ran a supervising sh{noise}"),
            },
            How::Late(time) => {
                let s = time.as_secs();
                format!(
                    "the login's start-up file replaced the shell, or waits: no sh answered within {s} s; {look}{noise}"
                )
            }
            How::Loud => {
                format!("the login's start-up file prints without end: more than {NOISE_READ} bytes; {look}{noise}")
            }
        }
    }
}

/// Where to look for what replaced the shell.
const LOOK_AT: &str = "look for exec, read, tmux or sudo in ~/.bashrc, ~/.zshenv, ~/.config/fish/config.fish or ~/.cshrc \
                       there, and for ForceCommand in its sshd_config";
