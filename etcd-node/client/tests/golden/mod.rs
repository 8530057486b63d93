//! Reads a recorded session: `$ etcdctl WORDS`, `O| stdout`, `E| stderr`, `[exit CODE]`.

/// One command of the session and what came of it.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    /// Line of the command in the file, for messages.
    pub(crate) line: usize,
    pub(crate) section: String,
    /// The command as it was typed.
    pub(crate) command: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) exit: i32,
}

impl Block {
    /// The command's words, with the shell's quotes taken away.
    pub(crate) fn words(&self) -> Vec<String> {
        split(&self.command)
    }
}

pub(crate) fn parse(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut section = String::new();
    let mut open: Option<Block> = None;
    for (position, line) in text.lines().enumerate() {
        if let Some(name) = line.strip_prefix("################ ") {
            section = name.to_owned();
        } else if let Some(command) = line.strip_prefix("$ etcdctl") {
            open = Some(Block {
                line: position + 1,
                section: section.clone(),
                command: command.trim_start().to_owned(),
                stdout: String::new(),
                stderr: String::new(),
                exit: 0,
            });
        }
        let Some(block) = &mut open else { continue };
        if let Some(text) = line.strip_prefix("O| ") {
            block.stdout.push_str(text);
            block.stdout.push('\n');
        } else if let Some(text) = line.strip_prefix("E| ") {
            block.stderr.push_str(text);
            block.stderr.push('\n');
        } else if let Some(code) = line.strip_prefix("[exit ") {
            block.exit = code.trim_end_matches(']').parse().unwrap();
            blocks.extend(open.take());
        }
    }
    blocks
}

/// Splits as bash does what its `printf %q` wrote: backslashes, `''` and `$'...'` with `\n`.
fn split(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = command.chars();
    while let Some(character) = rest.next() {
        match character {
            ' ' => words.extend(word.take()),
            '\\' => word.get_or_insert_default().extend(rest.next()),
            '$' if rest.as_str().starts_with('\'') => {
                rest.next();
                let quoted = rest
                    .by_ref()
                    .take_while(|character| *character != '\'')
                    .collect::<String>();
                word.get_or_insert_default()
                    .push_str(&quoted.replace("\\n", "\n"));
            }
            '\'' => {
                let quoted = rest.by_ref().take_while(|character| *character != '\'');
                word.get_or_insert_default().extend(quoted);
            }
            plain => word.get_or_insert_default().push(plain),
        }
    }
    words.extend(word);
    words
}

#[test]
fn words_are_split_as_bash_does() {
    assert_eq!(
        split(r"set /mykey this\ is\ awesome"),
        ["set", "/mykey", "this is awesome"]
    );
    assert_eq!(split("set empty ''"), ["set", "empty", ""]);
    assert_eq!(split(r"set multi $'l1\nl2'"), ["set", "multi", "l1\nl2"]);
    assert_eq!(split(r"sh -c a\;\ kill\ \$PPID"), ["sh", "-c", "a; kill $PPID"]);
}
