//! Names of users and groups as numbers, from the text of `/etc/passwd` and `/etc/group`.
//!
//! Read from the files and not from libc: under `--root` the accounts are those of the other
//! root, and a static program has no name services anyway.

/// Who a file belongs to; None leaves that half as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// User number.
    pub uid: Option<u32>,
    /// Group number.
    pub gid: Option<u32>,
}

/// Resolves `user`, `user:group`, `user:` (with the user's own group) or `:group`.
///
/// # Errors
/// A name that is in neither file, or an empty text.
pub fn resolve(owner: &str, passwd: &str, group: &str) -> Result<Owner, String> {
    let (user, group_name) = match owner.split_once(':') {
        Some((user, group_name)) => (user, Some(group_name)),
        None => (owner, None),
    };
    let uid = match user {
        "" => None,
        user => Some(number(user, passwd).ok_or_else(|| unknown("user", user, "passwd"))?),
    };
    let gid = match group_name {
        None => None,
        Some("") if uid.is_none() => return Err(format!("owner {owner:?} names nobody")),
        Some("") => Some(own_group(user, passwd).ok_or_else(|| unknown("user", user, "passwd"))?),
        Some(name) => Some(number(name, group).ok_or_else(|| unknown("group", name, "group"))?),
    };
    if uid.is_none() && gid.is_none() {
        return Err(format!("owner {owner:?} names nobody"));
    }
    Ok(Owner { uid, gid })
}

fn unknown(kind: &str, name: &str, file: &str) -> String {
    format!("{kind} {name:?} is not in /etc/{file}: create it first, or use a number")
}

/// The third field of the line that starts with this name; a number stands for itself.
fn number(name: &str, accounts: &str) -> Option<u32> {
    field(name, accounts, 2).or_else(|| name.parse().ok())
}

fn own_group(user: &str, passwd: &str) -> Option<u32> {
    field(user, passwd, 3)
}

fn field(name: &str, accounts: &str, index: usize) -> Option<u32> {
    let line = accounts
        .lines()
        .find(|line| line.split(':').next() == Some(name))?;
    line.split(':').nth(index)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\netcd:x:110:115::/var/lib/etcd:/bin/false\n";
    const GROUP: &str = "root:x:0:\nadm:x:4:syslog\n";

    fn owner(uid: Option<u32>, gid: Option<u32>) -> Result<Owner, String> {
        Ok(Owner { uid, gid })
    }

    #[test]
    fn names_and_numbers_resolve_as_chown_does() {
        for (text, expected) in [
            ("root", owner(Some(0), None)),
            ("etcd:adm", owner(Some(110), Some(4))),
            ("etcd:", owner(Some(110), Some(115))),
            (":adm", owner(None, Some(4))),
            ("1000:1001", owner(Some(1000), Some(1001))),
        ] {
            assert_eq!(resolve(text, PASSWD, GROUP), expected, "{text}");
        }
    }

    #[test]
    fn unknown_names_are_refused_with_the_name() {
        for (text, part) in [
            ("core", "user \"core\" is not in /etc/passwd"),
            ("root:core", "group \"core\" is not in /etc/group"),
            (":", "names nobody"),
            ("", "names nobody"),
            ("1000:", "user \"1000\""),
        ] {
            let error = resolve(text, PASSWD, GROUP).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
