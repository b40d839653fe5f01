//! Rust source as far as the tidy rules need it: tokens without comments and strings, and the paths named.

/// A word or a sign of the code. `::` is one token.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) text: String,
    /// From 1.
    pub(crate) line: usize,
}

/// A path as it stands in the code, `use` trees written out.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    /// Of our own modules: the path from the root of the crate. Of others: as written.
    pub(crate) segments: Vec<String>,
    /// Whether it begins at the root of our crate, after `crate`, `self` and `super` are resolved.
    pub(crate) ours: bool,
    /// Whether it stands in an item under `#[cfg(test)]`.
    pub(crate) in_test: bool,
    pub(crate) line: usize,
}

/// One source file.
#[derive(Debug)]
pub(crate) struct Source {
    /// From the package's root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) tokens: Vec<Token>,
    /// Comments with their lines.
    pub(crate) comments: Vec<(usize, String)>,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let (tokens, comments) = tokenize(text);
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            tokens,
            comments,
        }
    }

    /// The module this file is: `store::sled` for `src/store/sled.rs`, empty for `src/lib.rs`.
    pub(crate) fn module(&self) -> Vec<String> {
        let inner = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let inner = inner.strip_suffix(".rs").unwrap_or(inner);
        let mut module: Vec<String> = inner.split('/').map(str::to_owned).collect();
        if matches!(module.last().map(String::as_str), Some("mod" | "lib")) {
            module.pop();
        }
        module
    }

    pub(crate) fn at(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path)
    }

    /// All paths of two segments or more, and all that `use` names.
    pub(crate) fn named(&self) -> Vec<Named> {
        let tokens = &self.tokens;
        let mut found = Vec::new();
        let mut modules: Vec<(String, usize)> = Vec::new();
        let (mut depth, mut test_from, mut test_ahead) = (0_usize, None, false);
        let mut i = 0;
        while i < tokens.len() {
            let text = tokens[i].text.as_str();
            match text {
                "{" => {
                    depth += 1;
                    if std::mem::take(&mut test_ahead) && test_from.is_none() {
                        test_from = Some(depth);
                    }
                    if i >= 2 && tokens[i - 2].text == "mod" {
                        modules.push((tokens[i - 1].text.clone(), depth));
                    }
                }
                "}" => {
                    modules.pop_if(|(_, opened)| *opened == depth);
                    test_from = test_from.filter(|opened| *opened != depth);
                    depth = depth.saturating_sub(1);
                }
                ";" => test_ahead = false,
                "#" if is_cfg_test(&tokens[i..]) => test_ahead = true,
                _ => {}
            }
            // `impl Trait + use<'a>` imports nothing.
            let imports = text == "use" && tokens.get(i + 1).is_some_and(|next| next.text != "<");
            let written = if imports {
                let (tree, next) = use_tree(tokens, i + 1, &[]);
                i = next;
                tree
            } else if is_word(text) {
                let (path, next) = plain_path(tokens, i);
                i = next;
                if path.0.len() > 1 { vec![path] } else { vec![] }
            } else {
                i += 1;
                vec![]
            };
            let mut module = self.module();
            module.extend(modules.iter().map(|(name, _)| name.clone()));
            let in_test = test_ahead || test_from.is_some();
            found.extend(written.into_iter().map(|(segments, line)| {
                let (segments, ours) = resolve(segments, &module);
                Named {
                    segments,
                    ours,
                    in_test,
                    line,
                }
            }));
        }
        found
    }
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

fn is_cfg_test(tokens: &[Token]) -> bool {
    let is = |wanted: &[&str]| {
        tokens.len() >= wanted.len()
            && tokens
                .iter()
                .zip(wanted)
                .all(|(token, wanted)| token.text == *wanted)
    };
    is(&["#", "[", "cfg", "(", "test"]) || is(&["#", "[", "cfg", "(", "all", "(", "test"])
}

type Written = (Vec<String>, usize);

fn plain_path(tokens: &[Token], start: usize) -> (Written, usize) {
    let mut segments = vec![tokens[start].text.clone()];
    let mut i = start + 1;
    while i + 1 < tokens.len() && tokens[i].text == "::" && is_word(&tokens[i + 1].text) {
        segments.push(tokens[i + 1].text.clone());
        i += 2;
    }
    ((segments, tokens[start].line), i)
}

/// Writes out `a::{b, c::d as e, self, *}` after `prefix`; returns where the tree ends.
fn use_tree(tokens: &[Token], start: usize, prefix: &[String]) -> (Vec<Written>, usize) {
    let mut path = prefix.to_vec();
    let mut i = start;
    while i < tokens.len() {
        let token = &tokens[i];
        match token.text.as_str() {
            "{" => {
                let mut all = Vec::new();
                i += 1;
                while i < tokens.len() && !matches!(tokens[i].text.as_str(), "}" | ";") {
                    let (branch, next) = use_tree(tokens, i, &path);
                    all.extend(branch);
                    i = if tokens.get(next).is_some_and(|token| token.text == ",") {
                        next + 1
                    } else {
                        next
                    };
                }
                return (all, i + 1);
            }
            "as" => i += 2,
            "," | "}" | ";" => break,
            "::" => i += 1,
            // `use a::{self}` names `a`.
            "self" if !path.is_empty() => i += 1,
            word => {
                path.push(word.to_owned());
                i += 1;
            }
        }
    }
    let line = tokens.get(i.saturating_sub(1)).map_or(0, |token| token.line);
    (vec![(path, line)], i)
}

/// The path from the crate's root, and whether it is ours at all.
fn resolve(written: Vec<String>, module: &[String]) -> (Vec<String>, bool) {
    match written[0].as_str() {
        "crate" | "credbroker" => (written[1..].to_vec(), true),
        "self" => ([module, &written[1..]].concat(), true),
        "super" => {
            let ups = written.iter().take_while(|segment| *segment == "super").count();
            let stays = &module[..module.len().saturating_sub(ups)];
            ([stays, &written[ups..]].concat(), true)
        }
        _ => (written, false),
    }
}

fn tokenize(text: &str) -> (Vec<Token>, Vec<(usize, String)>) {
    let chars: Vec<char> = text.chars().collect();
    let (mut tokens, mut comments) = (Vec::new(), Vec::new());
    let (mut i, mut line) = (0, 1);
    while i < chars.len() {
        let start = i;
        let rest = &chars[i..];
        match rest {
            ['/', '/', ..] => {
                i += rest.iter().take_while(|c| **c != '\n').count();
                comments.push((line, chars[start..i].iter().collect()));
            }
            ['/', '*', ..] => {
                i += block_comment(rest);
                comments.push((line, chars[start..i].iter().collect()));
            }
            ['"', ..] | ['b' | 'c', '"', ..] => i += quoted(rest),
            ['r', '"' | '#', ..] | ['b' | 'c', 'r', '"' | '#', ..] if raw_string(rest).is_some() => {
                i += raw_string(rest).unwrap_or(1);
            }
            ['\'', '\\', ..] | ['b', '\'', '\\', ..] => {
                let from = if rest[0] == 'b' { 4 } else { 3 };
                i += from + rest[from..].iter().take_while(|c| **c != '\'').count() + 1;
            }
            ['\'', _, '\'', ..] => i += 3,
            ['b', '\'', _, '\'', ..] => i += 4,
            [':', ':', ..] => i += 2,
            [c, ..] if c.is_alphanumeric() || *c == '_' => {
                i += rest
                    .iter()
                    .take_while(|c| c.is_alphanumeric() || **c == '_')
                    .count();
            }
            _ => i += 1,
        }
        i = i.min(chars.len());
        let piece: String = chars[start..i].iter().collect();
        let is_code = piece.chars().next().is_some_and(|c| !c.is_whitespace())
            && !piece.contains(['"', '\n'])
            && !(piece.len() > 1 && (piece.starts_with('/') || piece.contains('\'')));
        line += piece.matches('\n').count();
        if is_code {
            tokens.push(Token { text: piece, line });
        }
    }
    (tokens, comments)
}

fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut i) = (0, 0);
    while i < rest.len() {
        match rest[i..] {
            ['/', '*', ..] => (depth, i) = (depth + 1, i + 2),
            ['*', '/', ..] => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            break;
        }
    }
    i
}

fn quoted(rest: &[char]) -> usize {
    let mut i = if rest[0] == '"' { 1 } else { 2 };
    while i < rest.len() && rest[i] != '"' {
        i += if rest[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

fn raw_string(rest: &[char]) -> Option<usize> {
    let prefix = rest.iter().take_while(|c| matches!(c, 'b' | 'c' | 'r')).count();
    let hashes = rest[prefix..].iter().take_while(|c| **c == '#').count();
    let open = prefix + hashes;
    if rest.get(open) != Some(&'"') {
        return None;
    }
    let end: Vec<char> = std::iter::once('"')
        .chain(std::iter::repeat_n('#', hashes))
        .collect();
    let body = rest[open + 1..]
        .windows(end.len())
        .position(|window| window == end)?;
    Some(open + 1 + body + end.len())
}
