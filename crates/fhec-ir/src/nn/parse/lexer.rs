//! Tokens of the text form.

use super::ParseError;
use std::fmt;

/// One token.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// A name, a number, a shape or a hash.
    Word(String),
    /// A quoted string, unescaped.
    String(String),
    /// Anything else.
    Symbol(char),
    /// End of the text.
    End,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Word(w) => write!(f, "'{w}'"),
            Token::String(s) => write!(f, "{s:?}"),
            Token::Symbol(c) => write!(f, "'{c}'"),
            Token::End => f.write_str("the end"),
        }
    }
}

/// All tokens with their lines, and a position.
pub(super) struct Lexer {
    tokens: Vec<(Token, usize)>,
    at: usize,
}

impl Lexer {
    pub(super) fn new(text: &str) -> Result<Self, ParseError> {
        let mut tokens = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line_number = number + 1;
            let mut rest = line.trim_start();
            while let Some(c) = rest.chars().next() {
                let length = match c {
                    '"' => {
                        let (value, length) = quoted(rest).ok_or_else(|| ParseError {
                            line: line_number,
                            message: "a string is not closed or has an unknown escape".to_owned(),
                        })?;
                        tokens.push((Token::String(value), line_number));
                        length
                    }
                    _ if is_word(c) => {
                        let length = word_length(rest);
                        tokens.push((Token::Word(rest[..length].to_owned()), line_number));
                        length
                    }
                    _ => {
                        tokens.push((Token::Symbol(c), line_number));
                        c.len_utf8()
                    }
                };
                rest = rest[length..].trim_start();
            }
        }
        tokens.push((Token::End, text.lines().count().max(1)));
        Ok(Lexer { tokens, at: 0 })
    }

    /// An error at the last token taken.
    pub(super) fn error(&self, message: impl Into<String>) -> ParseError {
        ParseError { line: self.tokens[self.at.saturating_sub(1)].1, message: message.into() }
    }

    fn peek(&self) -> &Token {
        &self.tokens[self.at.min(self.tokens.len() - 1)].0
    }

    /// Takes the next token; the end again and again.
    pub(super) fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at = (self.at + 1).min(self.tokens.len());
        token
    }

    /// Takes `c` if it is next.
    pub(super) fn take(&mut self, c: char) -> bool {
        let found = *self.peek() == Token::Symbol(c);
        self.at += usize::from(found);
        found
    }

    /// Takes `word` if it is next.
    pub(super) fn take_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Token::Word(w) if w == word);
        self.at += usize::from(found);
        found
    }

    pub(super) fn symbol(&mut self, c: char) -> Result<(), ParseError> {
        match self.next() {
            Token::Symbol(found) if found == c => Ok(()),
            other => Err(self.error(format!("expected '{c}', found {other}"))),
        }
    }

    pub(super) fn word(&mut self, word: &str) -> Result<(), ParseError> {
        match self.next() {
            Token::Word(found) if found == word => Ok(()),
            other => Err(self.error(format!("expected '{word}', found {other}"))),
        }
    }

    pub(super) fn any_word(&mut self) -> Result<String, ParseError> {
        match self.next() {
            Token::Word(found) => Ok(found),
            other => Err(self.error(format!("expected a word, found {other}"))),
        }
    }

    pub(super) fn string(&mut self) -> Result<String, ParseError> {
        match self.next() {
            Token::String(found) => Ok(found),
            other => Err(self.error(format!("expected a string, found {other}"))),
        }
    }

    pub(super) fn number(&mut self) -> Result<f64, ParseError> {
        let word = self.any_word()?;
        word.parse().map_err(|_| self.error(format!("'{word}' is no number")))
    }

    pub(super) fn integer(&mut self) -> Result<usize, ParseError> {
        let word = self.any_word()?;
        word.parse().map_err(|_| self.error(format!("'{word}' is no natural number")))
    }

    /// A number of a value or constant.
    pub(super) fn id(&mut self) -> Result<u32, ParseError> {
        let word = self.any_word()?;
        word.parse().map_err(|_| self.error(format!("'{word}' is no id")))
    }

    /// Numbers up to `]`, which is taken too.
    pub(super) fn list_after_bracket(&mut self) -> Result<Vec<f64>, ParseError> {
        let mut values = Vec::new();
        if self.take(']') {
            return Ok(values);
        }
        loop {
            values.push(self.number()?);
            if self.take(']') {
                return Ok(values);
            }
            self.symbol(',')?;
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')
}

/// Length of the word at the start.
fn word_length(text: &str) -> usize {
    text.find(|c| !is_word(c)).unwrap_or(text.len())
}

/// The string at the start, unescaped, and its length in bytes; escapes are those of Rust's `{:?}`.
fn quoted(text: &str) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => return Some((value, i + 1)),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                't' => value.push('\t'),
                'r' => value.push('\r'),
                '0' => value.push('\0'),
                'u' => {
                    let mut code = String::new();
                    (chars.next()?.1 == '{').then_some(())?;
                    loop {
                        match chars.next()?.1 {
                            '}' => break,
                            digit => code.push(digit),
                        }
                    }
                    value.push(char::from_u32(u32::from_str_radix(&code, 16).ok()?)?);
                }
                c @ ('"' | '\\' | '\'') => value.push(c),
                _ => return None,
            },
            c => value.push(c),
        }
    }
    None
}
