//! Reads Rust just far enough for the rules: comments, the paths that code names, the modules it declares. A parser
//! crate would double the time that `xtask` takes to build, and the rules need no more than this.

/// What a file of Rust says, as far as the rules ask.
#[derive(Debug, Default)]
pub(crate) struct Source {
    /// Text of every comment line, with its line number.
    pub(crate) comments: Vec<(usize, String)>,
    pub(crate) mentions: Vec<Mention>,
    /// Modules that are declared to be in files of their own, below the modules inside this file: `tests/damage`.
    pub(crate) modules: Vec<String>,
    pub(crate) literals: Vec<Literal>,
}

/// A string of the code.
#[derive(Debug)]
pub(crate) struct Literal {
    /// Where it begins.
    pub(crate) line: usize,
    pub(crate) text: String,
    /// Inside `#[cfg(test)] mod ... { }`.
    pub(crate) is_test: bool,
    /// It belongs to `#[path = "..."]` or to an `include!`.
    pub(crate) is_file: bool,
}

/// A path that code names: `crate::api::v3::Front`, `tokio::spawn`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mention {
    pub(crate) line: usize,
    /// Absolute as far as it can be told: `self` and `super` are resolved.
    pub(crate) path: Vec<String>,
    /// Inside `#[cfg(test)] mod ... { }`.
    pub(crate) is_test: bool,
}

impl Mention {
    /// Whether the path is `prefix` or goes on from it.
    pub(crate) fn begins_with(&self, prefix: &str) -> bool {
        let mut path = self.path.iter();
        prefix
            .split("::")
            .all(|segment| path.next().is_some_and(|own| own == segment))
    }
}

/// Reads a file's text. `module` is the module that the file is: empty for a crate's root.
pub(crate) fn read(text: &str, module: &[String]) -> Source {
    let (tokens, comments) = Lexer::new(text).run();
    let mut source = Source {
        comments,
        ..Source::default()
    };
    Walk {
        tokens: &tokens,
        at: 0,
        file: module,
        depth: 0,
        inline: Vec::new(),
        test: None,
        is_test_next: false,
    }
    .run(&mut source);
    source
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Literal(String),
    /// `::`
    Colons,
    Sign(char),
}

/// Tokens, each with its line.
type Tokens = Vec<(usize, Token)>;

struct Lexer<'text> {
    rest: &'text str,
    line: usize,
    tokens: Tokens,
    comments: Vec<(usize, String)>,
}

impl<'text> Lexer<'text> {
    fn new(text: &'text str) -> Self {
        Self {
            rest: text,
            line: 1,
            tokens: Vec::new(),
            comments: Vec::new(),
        }
    }

    fn run(mut self) -> (Tokens, Vec<(usize, String)>) {
        while let Some(next) = self.rest.chars().next() {
            match next {
                _ if self.rest.starts_with("//") => self.line_comment(),
                _ if self.rest.starts_with("/*") => self.block_comment(),
                '"' => self.string(0),
                '\'' => self.quote(),
                _ if self.rest.starts_with("::") => self.push(Token::Colons, 2),
                _ if next.is_alphabetic() || next == '_' => self.word(),
                // A suffix must not become a word, nor the dots of a range a part of the number.
                _ if next.is_ascii_digit() => {
                    let end = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_');
                    self.skip(end.unwrap_or(self.rest.len()));
                }
                _ if next.is_whitespace() => self.skip(next.len_utf8()),
                _ => self.push(Token::Sign(next), next.len_utf8()),
            }
        }
        (self.tokens, self.comments)
    }

    fn push(&mut self, token: Token, bytes: usize) {
        self.tokens.push((self.line, token));
        self.skip(bytes);
    }

    fn skip(&mut self, bytes: usize) {
        let (skipped, rest) = self.rest.split_at(bytes.min(self.rest.len()));
        self.line += skipped.matches('\n').count();
        self.rest = rest;
    }

    fn line_comment(&mut self) {
        let end = self.rest.find('\n').unwrap_or(self.rest.len());
        self.comments.push((self.line, self.rest[..end].to_owned()));
        self.skip(end);
    }

    fn block_comment(&mut self) {
        let mut depth = 0_usize;
        let mut end = self.rest.len();
        let mut at = 0;
        while at < self.rest.len() {
            let here = &self.rest[at..];
            if here.starts_with("/*") {
                depth += 1;
                at += 2;
            } else if here.starts_with("*/") {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    end = at;
                    break;
                }
            } else {
                at += here.chars().next().map_or(1, char::len_utf8);
            }
        }
        for (offset, line) in self.rest[..end].lines().enumerate() {
            self.comments.push((self.line + offset, line.to_owned()));
        }
        self.skip(end);
    }

    /// A plain string whose opening quote is `prefix` bytes ahead.
    fn string(&mut self, prefix: usize) {
        let body = &self.rest[prefix + 1..];
        let mut is_escaped = false;
        let end = body.find(|c| {
            let ends = c == '"' && !is_escaped;
            is_escaped = c == '\\' && !is_escaped;
            ends
        });
        let end = end.unwrap_or(body.len());
        self.push(Token::Literal(body[..end].to_owned()), prefix + end + 2);
    }

    /// A raw string whose `#`s begin `prefix` bytes ahead.
    fn raw_string(&mut self, prefix: usize, hashes: usize) {
        let close = format!("\"{}", "#".repeat(hashes));
        let open = prefix + hashes + 1;
        let end = self.rest[open..].find(&close).unwrap_or(self.rest.len() - open);
        let literal = self.rest[open..open + end].to_owned();
        self.push(Token::Literal(literal), open + end + close.len());
    }

    /// A character, or a lifetime.
    fn quote(&mut self) {
        let mut after = self.rest[1..].char_indices();
        match (after.next(), after.next()) {
            (Some((_, '\\')), Some((_, escaped))) => {
                // The escaped character may be the quote itself.
                let from = 2 + escaped.len_utf8();
                let end = self.rest.get(from..).and_then(|rest| rest.find('\''));
                self.skip(end.map_or(self.rest.len(), |end| from + end + 1));
            }
            (Some(_), Some((end, '\''))) => self.skip(1 + end + 1),
            _ => self.skip(1),
        }
    }

    fn word(&mut self) {
        let end = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_');
        let end = end.unwrap_or(self.rest.len());
        let (word, after) = self.rest.split_at(end);
        let hashes = after.len() - after.trim_start_matches('#').len();
        match word {
            "r" | "br" | "cr" if after[hashes..].starts_with('"') => self.raw_string(end, hashes),
            "b" | "c" if after.starts_with('"') => self.string(end),
            "b" if after.starts_with('\'') => {
                self.skip(end);
                self.quote();
            }
            // A raw identifier: the word after the sign is what counts.
            "r" if hashes == 1 => self.skip(2),
            _ => self.push(Token::Word(word.to_owned()), end),
        }
    }
}

/// Goes over the tokens once.
struct Walk<'tokens> {
    tokens: &'tokens [(usize, Token)],
    at: usize,
    file: &'tokens [String],
    /// Open braces.
    depth: usize,
    /// Modules with a body in this file, with the depth of their brace.
    inline: Vec<(String, usize)>,
    /// Depth of the brace of the test module that we are in.
    test: Option<usize>,
    /// `#[cfg(test)]` was seen, and the item after it was not.
    is_test_next: bool,
}

impl Walk<'_> {
    fn run(mut self, source: &mut Source) {
        while let Some((line, token)) = self.tokens.get(self.at) {
            match token {
                Token::Sign('{') => self.depth += 1,
                Token::Sign('}') => self.close(),
                Token::Sign(';') => self.is_test_next = false,
                Token::Sign('#') if self.follows(&["[", "cfg", "(", "test", ")", "]"]) => {
                    self.is_test_next = true;
                    self.at += 6;
                }
                Token::Literal(text) => source.literals.push(Literal {
                    line: *line,
                    text: text.clone(),
                    is_test: self.test.is_some(),
                    is_file: self.names_file(),
                }),
                Token::Word(word) if word == "mod" => self.module(source),
                Token::Word(word) if word == "use" => {
                    self.at += 1;
                    self.tree(&[], source);
                    continue;
                }
                Token::Word(_) => {
                    let path = self.chain();
                    if path.len() > 1 {
                        self.mention(*line, path, source);
                    }
                }
                _ => {}
            }
            self.at += 1;
        }
    }

    fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        if self.inline.last().is_some_and(|(_, depth)| *depth == self.depth) {
            self.inline.pop();
        }
        if self.test == Some(self.depth) {
            self.test = None;
        }
    }

    fn follows(&self, words: &[&str]) -> bool {
        let mut next = self.tokens[self.at + 1..].iter();
        words.iter().all(|word| match next.next() {
            Some((_, Token::Word(own))) => own == word,
            Some((_, Token::Sign(own))) => word.len() == own.len_utf8() && word.starts_with(*own),
            _ => false,
        })
    }

    /// `path = "..."`, `include_str!("...")`
    fn names_file(&self) -> bool {
        let before: Vec<_> = self.tokens[self.at.saturating_sub(3)..self.at]
            .iter()
            .map(|(_, token)| token)
            .collect();
        let is = |token: &Token, name: &str| matches!(token, Token::Word(word) if word.starts_with(name));
        before.len() == 3 && (is(before[1], "path") || is(before[0], "include"))
    }

    fn module(&mut self, source: &mut Source) {
        let (Some((_, Token::Word(name))), Some((_, Token::Sign(sign)))) =
            (self.tokens.get(self.at + 1), self.tokens.get(self.at + 2))
        else {
            return;
        };
        match sign {
            ';' => {
                let inline = self.inline.iter().map(|(name, _)| name.as_str());
                let path: Vec<_> = inline.chain([name.as_str()]).collect();
                source.modules.push(path.join("/"));
            }
            '{' => {
                self.inline.push((name.clone(), self.depth));
                if self.is_test_next && self.test.is_none() {
                    self.test = Some(self.depth);
                }
                self.depth += 1;
            }
            _ => return,
        }
        self.is_test_next = false;
        self.at += 2;
    }

    /// `a::b::c` from a word on; stops at its last word.
    fn chain(&mut self) -> Vec<String> {
        let mut path = Vec::new();
        while let Some((_, Token::Word(word))) = self.tokens.get(self.at) {
            path.push(word.clone());
            let goes_on = matches!(self.tokens.get(self.at + 1), Some((_, Token::Colons)))
                && matches!(self.tokens.get(self.at + 2), Some((_, Token::Word(_))));
            if !goes_on {
                break;
            }
            self.at += 2;
        }
        path
    }

    /// One branch of a `use` tree; ends behind its `,`, or before its `}` or `;`.
    fn tree(&mut self, prefix: &[String], source: &mut Source) {
        let mut path = prefix.to_vec();
        while let Some((line, token)) = self.tokens.get(self.at) {
            match token {
                Token::Word(word) if word == "as" => self.at += 1,
                Token::Word(word) => {
                    path.push(word.clone());
                    if !matches!(self.tokens.get(self.at + 1), Some((_, Token::Colons))) {
                        self.mention(*line, path.clone(), source);
                    }
                }
                Token::Sign('*') => self.mention(*line, path.clone(), source),
                Token::Colons => {}
                Token::Sign('{') => {
                    self.at += 1;
                    while !matches!(self.tokens.get(self.at), None | Some((_, Token::Sign('}' | ';')))) {
                        self.tree(&path, source);
                    }
                }
                Token::Sign(',') => {
                    self.at += 1;
                    return;
                }
                // The end of the list or of the statement; `use<'a>` of a bound is not a statement at all.
                _ => return,
            }
            self.at += 1;
        }
    }

    fn mention(&self, line: usize, path: Vec<String>, source: &mut Source) {
        source.mentions.push(Mention {
            line,
            path: self.absolute(path),
            is_test: self.test.is_some(),
        });
    }

    fn absolute(&self, path: Vec<String>) -> Vec<String> {
        let climbs = path.iter().take_while(|word| *word == "super").count();
        let is_own = path.first().is_some_and(|word| word == "self");
        if climbs == 0 && !is_own {
            return path;
        }
        let inline = self.inline.iter().map(|(name, _)| name);
        let mut from: Vec<_> = self.file.iter().chain(inline).cloned().collect();
        from.truncate(from.len().saturating_sub(climbs));
        from.insert(0, "crate".to_owned());
        from.extend(path.into_iter().skip(climbs.max(1)));
        from
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str) -> Vec<String> {
        let module = ["api".to_owned(), "v2".to_owned()];
        let source = read(text, &module);
        source
            .mentions
            .iter()
            .map(|mention| mention.path.join("::"))
            .collect()
    }

    #[test]
    fn use_trees_are_spread_out() {
        assert_eq!(
            paths("use crate::{api::{v2, v3 as front}, wal::*};\npub use tokio;"),
            ["crate::api::v2", "crate::api::v3", "crate::wal", "tokio"]
        );
        assert_eq!(
            paths("use super::super::store::{self, v3};"),
            ["crate::store::self", "crate::store::v3"]
        );
    }

    #[test]
    fn inline_paths_count_and_texts_do_not() {
        let text = r##"
            // crate::api::v3 in a comment
            fn f<'a>(x: &'a str) -> char { let _ = "crate::api::v3 \" ::x::y"; let _ = r#"a::b" c::d"#; '"' }
            fn g() { super::v3::Front::new(b'\'', 1..2); let y = '\\'; std::fs::read("x"); }
        "##;
        assert_eq!(paths(text), ["crate::api::v3::Front::new", "std::fs::read"]);
    }

    #[test]
    fn tests_inside_a_file_are_known() {
        let text = "use a::b;\n#[cfg(test)]\nmod tests {\n    use super::*;\n    use c::d;\n}\nuse e::f;";
        let source = read(text, &["keys".to_owned()]);
        let seen: Vec<_> = source
            .mentions
            .iter()
            .map(|mention| (mention.line, mention.path.join("::"), mention.is_test))
            .collect();
        assert_eq!(
            seen,
            [
                (1, "a::b".to_owned(), false),
                (4, "crate::keys".to_owned(), true),
                (5, "c::d".to_owned(), true),
                (7, "e::f".to_owned(), false)
            ]
        );
    }

    #[test]
    fn modules_and_comments() {
        let source = read(
            "//! idea\npub(crate) mod a;\n#[path = \"odd.rs\"]\nmod b;\nmod c { mod d; const X: &str = \"x\"; }\n/* x\ny */",
            &[],
        );
        assert_eq!(source.modules, ["a", "b", "c/d"]);
        let literals: Vec<_> = source
            .literals
            .iter()
            .map(|literal| (literal.text.as_str(), literal.is_file))
            .collect();
        assert_eq!(literals, [("odd.rs", true), ("x", false)]);
        let comments: Vec<_> = source
            .comments
            .iter()
            .map(|(line, text)| (*line, text.as_str()))
            .collect();
        assert_eq!(comments, [(1, "//! idea"), (6, "/* x"), (7, "y */")]);
    }

    #[test]
    fn prefix_is_of_whole_segments() {
        let mention = Mention {
            line: 1,
            path: ["crate", "api", "v3x"].map(str::to_owned).into(),
            is_test: false,
        };
        assert!(mention.begins_with("crate::api"));
        assert!(!mention.begins_with("crate::api::v3"));
        assert!(!mention.begins_with("crate::api::v3x::y"));
    }
}
