//! Users of an htpasswd file, as Distribution reads it: bcrypt alone.
//! Invariant: whoever asks with a wrong password waits as long as anyone, whether the user is there or not (hazard A11).

mod verified;

use std::collections::HashMap;
use std::hint::black_box;

use self::verified::Verified;
use crate::{Error, Result};

/// What an empty file's users cost: htpasswd's and Distribution's own default is less.
const DEFAULT_COST: u32 = 10;
/// Some 4 s a try; more is a slip of the hand.
const MAX_COST: u32 = 16;
/// The longest name in bytes.
const MAX_NAME: usize = 255;
/// More users than this belong into accounts.
const MAX_USERS: usize = 10_000;

/// The users of one state of the file. A file that has changed is read anew, and then nothing is remembered of the old one.
pub struct Htpasswd {
    users: HashMap<String, Entry>,
    /// Of the dearest entry: what every answer costs.
    cost: u32,
    verified: Verified,
}

struct Entry {
    hash: String,
    cost: u32,
}

impl Htpasswd {
    /// Reads a file's text: a line `name:hash` for each user; empty lines and those that begin with `#` do not count.
    ///
    /// # Errors
    /// [`Error::Htpasswd`] with the line that cannot be used and what to do about it.
    pub fn parse(text: &str) -> Result<Self> {
        let mut users = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let invalid = |reason: String| Error::Htpasswd { line: index + 1, reason };
            if users.len() == MAX_USERS {
                return Err(invalid(format!("there are over {MAX_USERS} users: make them accounts")));
            }
            let (name, hash) = line.split_once(':').ok_or_else(|| invalid("write NAME:HASH".to_owned()))?;
            if name.is_empty() || name.len() > MAX_NAME || name.contains(char::is_control) {
                return Err(invalid(format!("a name has 1 to {MAX_NAME} bytes and no control characters")));
            }
            let entry = Entry::parse(hash, name).map_err(invalid)?;
            if users.contains_key(name) {
                return Err(invalid(format!("{name} is there twice: remove one of the lines")));
            }
            users.insert(name.to_owned(), entry);
        }
        let cost = users.values().map(|entry: &Entry| entry.cost).max().unwrap_or(DEFAULT_COST);
        Ok(Self { users, cost, verified: Verified::new()? })
    }

    pub fn len(&self) -> usize {
        self.users.len()
    }

    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Whether this user gave this password in the last minute and it was right. Takes microseconds.
    pub fn verified_lately(&self, user: &str, password: &str, now_us: i64) -> bool {
        self.verified.contains(user, password, now_us)
    }

    /// Whether the password is the user's. Takes as long for a user that is not there, whatever entries cost: tens of
    /// milliseconds of a processor and more, so it belongs on a thread for blocking work.
    pub fn verify(&self, user: &str, password: &str, now_us: i64) -> bool {
        let entry = self.users.get(user);
        let right = match entry {
            Some(entry) => {
                let right = bcrypt::verify(password, &entry.hash).unwrap_or(false);
                // A cost of c takes 2^c steps; those of c, c, c + 1, … make up for the rest.
                (entry.cost..self.cost).for_each(|cost| waste(password, cost));
                right
            }
            None => {
                waste(password, self.cost);
                false
            }
        };
        if right {
            self.verified.remember(user, password, now_us);
        }
        right
    }
}

impl Entry {
    fn parse(hash: &str, name: &str) -> Result<Self, String> {
        let again = || format!("`htpasswd -B FILE {name}` writes the line anew");
        let bcrypt = hash.get(..4).is_some_and(|start| ["$2a$", "$2b$", "$2y$"].contains(&start));
        if !bcrypt {
            let scheme = match hash {
                hash if hash.starts_with("$apr1$") => "MD5 (apr1)",
                hash if hash.starts_with("{SHA}") => "SHA-1",
                hash if hash.starts_with("$5$") || hash.starts_with("$6$") => "SHA crypt",
                hash if hash.starts_with('$') => "of a scheme that is not known here",
                _ => "crypt or plain text",
            };
            return Err(format!("the password of {name} is {scheme}, and only bcrypt is taken: {}", again()));
        }
        let parts: bcrypt::HashParts =
            hash.parse().map_err(|_| format!("the hash of {name} is malformed: {}", again()))?;
        let cost = parts.get_cost();
        if cost > MAX_COST {
            return Err(format!(
                "the hash of {name} has cost {cost}, and over {MAX_COST} takes seconds at each try: `htpasswd -B -C 10 FILE {name}` writes the line anew"
            ));
        }
        Ok(Self { hash: hash.to_owned(), cost })
    }
}

/// The work of a verification without its answer.
fn waste(password: &str, cost: u32) {
    let _ = black_box(bcrypt::hash_with_salt(black_box(password), cost, [0; 16]));
}

impl std::fmt::Debug for Htpasswd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Htpasswd").field("users", &self.users.len()).field("cost", &self.cost).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, password: &str, cost: u32) -> String {
        let hash = bcrypt::hash_with_salt(password, cost, *b"0123456789abcdef").unwrap();
        format!("{name}:{}\n", hash.format_for_version(bcrypt::Version::TwoY))
    }

    #[test]
    fn a_user_signs_in_with_their_password_and_no_other() {
        let text = format!("# people\n\n{}{}", line("alice", "wonder", 4), line("bob", "builder", 5));
        let users = Htpasswd::parse(&text).unwrap();
        assert_eq!((users.len(), users.cost), (2, 5));
        assert!(users.verify("alice", "wonder", 0) && users.verify("bob", "builder", 0));
        for (user, password) in
            [("alice", "builder"), ("bob", ""), ("eve", "wonder"), ("", ""), ("Alice", "wonder")]
        {
            assert!(!users.verify(user, password, 0), "{user}");
        }
        assert!(!Htpasswd::parse("").unwrap().verify("alice", "wonder", 0));
    }

    #[test]
    fn what_apache_wrote_is_read() {
        // `htpasswd -nbB -C 5 alice wonder`, and Go's own prefix.
        let hash = "$2y$05$m4vyC3fPWbhBlVbiX9WgMO3zYxsjTDnT6vZuDcRGrP9nY0tvXzZoy";
        let written = Htpasswd::parse(&format!("alice:{hash}\nbob:{}\n", hash.replace("2y", "2a"))).unwrap();
        assert_eq!(written.len(), 2);
    }

    #[test]
    fn other_schemes_and_broken_lines_are_refused_with_the_line_and_the_fix() {
        let good = line("alice", "wonder", 4);
        let refused = |bad: &str| Htpasswd::parse(&format!("{good}\n{bad}\n")).unwrap_err().to_string();
        for (bad, reason) in [
            ("bob:$apr1$5E3J1yuG$wp3kS3vP2oWHjE1ZTUoF6/", "MD5"),
            ("bob:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "SHA-1"),
            ("bob:$6$salt$hash", "SHA crypt"),
            ("bob:secret", "plain text"),
            ("bob:$2x$05$m4vyC3fPWbhBlVbiX9WgMO3zYxsjTDnT6vZuDcRGrP9nY0tvXzZoy", "not known"),
            ("bob:$2y$05$short", "malformed"),
            ("bob:$2y$20$m4vyC3fPWbhBlVbiX9WgMO3zYxsjTDnT6vZuDcRGrP9nY0tvXzZoy", "cost 20"),
            ("bob", "NAME:HASH"),
            (":x", "1 to 255 bytes"),
            ("b\tob:x", "control characters"),
            (good.trim(), "twice"),
        ] {
            let message = refused(bad);
            assert!(message.starts_with("line 3 of the htpasswd file: "), "{message}");
            assert!(message.contains(reason), "{message}");
            assert!(!message.contains("secret") && !message.contains("wp3kS3vP2oWHjE1ZTUoF6"), "{message}");
        }
    }

    #[test]
    fn a_right_password_is_remembered_for_a_minute_and_a_wrong_one_never() {
        let users = Htpasswd::parse(&line("alice", "wonder", 4)).unwrap();
        assert!(!users.verified_lately("alice", "wonder", 0));
        assert!(!users.verify("alice", "wrong", 0) && users.verify("alice", "wonder", 0));
        assert!(users.verified_lately("alice", "wonder", 59_999_999));
        assert!(!users.verified_lately("alice", "wrong", 0));
        assert!(!users.verified_lately("alicew", "onder", 0), "where the name ends counts");
        assert!(!users.verified_lately("alice", "wonder", 60_000_000));
    }
}
