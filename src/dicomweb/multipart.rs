//! Chunks of a multipart/related body in, its parts out, as they come (RFC 2046 section 5.1, PS3.18 section 8.6); and the frame around parts that are sent.
//!
//! The parser does no input or output and copies no content: data are slices of the chunks that were pushed. Between two chunks it keeps a number (how much
//! of a delimiter the first one ended with) or the head of a part, which is bounded. It takes what senders really send: boundaries of 73 characters, quoted
//! or not, a preamble, an epilogue, no line end after the last boundary. It does not take a body that ends without its closing boundary.

use bytes::Bytes;
use memchr::{memchr, memmem, memrchr};

/// Longest boundary. RFC 2046 says 70, and every Orthanc sends 73.
const LONGEST_BOUNDARY: usize = 200;

/// Why a body, or its Content-Type, is no multipart/related message of DICOM instances.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MultipartError {
    /// The Content-Type is not multipart at all, or absent.
    #[error("the body must be multipart/related; type=\"application/dicom\", and is {0:?}")]
    NotMultipart(String),
    /// It is multipart, but not of DICOM instances.
    #[error("only multipart/related; type=\"application/dicom\" is taken, not {0:?}")]
    UnsupportedType(String),
    /// The boundary is absent, empty, too long, or holds characters that no boundary may have.
    #[error("Content-Type names no usable boundary")]
    NoBoundary,
    /// A boundary is followed by something else than a line end or two hyphens.
    #[error("a boundary is followed by neither a line end nor two hyphens")]
    BrokenDelimiter,
    /// A header line of a part is none.
    #[error("part {part} has a header line without a colon")]
    BrokenHeader {
        /// Number of the part, from 1.
        part: usize,
    },
    /// The head of a part is longer than allowed.
    #[error("the head of part {part} is longer than {limit} bytes")]
    HeadTooLong {
        /// Number of the part, from 1.
        part: usize,
        /// Most bytes.
        limit: usize,
    },
    /// A part is longer than allowed.
    #[error("part {part} is longer than {limit} bytes")]
    PartTooLong {
        /// Number of the part, from 1.
        part: usize,
        /// Most bytes.
        limit: u64,
    },
    /// There are more parts than allowed.
    #[error("there are more than {0} parts")]
    TooManyParts(usize),
    /// The body ended before its closing boundary: it was cut off on its way.
    #[error("the body ended without its closing boundary")]
    Unclosed,
}

impl MultipartError {
    /// Whether a limit was met, rather than the syntax missed.
    #[must_use]
    pub fn is_limit(&self) -> bool {
        matches!(
            self,
            Self::HeadTooLong { .. } | Self::PartTooLong { .. } | Self::TooManyParts(_)
        )
    }
}

/// The boundary of a multipart message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boundary {
    /// CRLF, two hyphens, and the boundary: what parts one part from the next.
    delimiter: Bytes,
}

impl Boundary {
    /// A boundary by its text.
    ///
    /// # Errors
    /// [`MultipartError::NoBoundary`] for a text that can be none.
    pub fn new(text: &str) -> Result<Boundary, MultipartError> {
        let fits = (1..=LONGEST_BOUNDARY).contains(&text.len())
            && text.bytes().all(|byte| (0x20..0x7F).contains(&byte))
            && !text.ends_with(' ');
        if !fits {
            return Err(MultipartError::NoBoundary);
        }
        Ok(Boundary {
            delimiter: format!("\r\n--{text}").into(),
        })
    }

    /// The boundary that a Content-Type names: `multipart/related; type="application/dicom"; boundary=...`. The type may be left out; values may be quoted
    /// or not; other parameters are passed over.
    ///
    /// # Errors
    /// [`MultipartError::NotMultipart`], [`MultipartError::UnsupportedType`] or [`MultipartError::NoBoundary`].
    pub fn of_content_type(value: &str) -> Result<Boundary, MultipartError> {
        let short = || value.chars().take(100).collect::<String>();
        let (essence, parameters) = value.split_once(';').unwrap_or((value, ""));
        let essence = essence.trim().to_ascii_lowercase();
        if !essence.starts_with("multipart/") {
            return Err(MultipartError::NotMultipart(short()));
        }
        if essence != "multipart/related" {
            return Err(MultipartError::UnsupportedType(short()));
        }
        let mut boundary = None;
        for (name, value) in parameters_of(parameters) {
            match name.as_str() {
                "boundary" if boundary.is_none() => boundary = Some(value),
                "type" => {
                    let media_type = value.split(';').next().unwrap_or_default().trim();
                    if !media_type.eq_ignore_ascii_case("application/dicom") {
                        return Err(MultipartError::UnsupportedType(short()));
                    }
                }
                _ => {}
            }
        }
        Boundary::new(&boundary.ok_or(MultipartError::NoBoundary)?)
    }
}

/// The parameters of a Content-Type: names in lower case, values without their quotes.
fn parameters_of(mut rest: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    loop {
        rest = rest.trim_start_matches(|c: char| c == ';' || c.is_ascii_whitespace());
        let Some((name, after)) = rest.split_once('=') else {
            return found;
        };
        if let Some((_, later)) = name.split_once(';') {
            // A word without a value; the next parameter begins after it.
            rest = rest
                .get(rest.len() - after.len() - 1 - later.len()..)
                .unwrap_or_default();
            continue;
        }
        let after = after.trim_start();
        let (value, left) = match after.strip_prefix('"') {
            Some(quoted) => unquoted(quoted),
            None => {
                let end = after.find(';').unwrap_or(after.len());
                let (value, left) = after.split_at(end);
                (value.trim_end().to_owned(), left)
            }
        };
        found.push((name.trim().to_ascii_lowercase(), value));
        rest = left;
    }
}

/// The text up to the closing quote, its escapes resolved, and what follows.
fn unquoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, text.get(at + 1..).unwrap_or_default()),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

/// What the parts of a body may be at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartLimits {
    /// Bytes of the head of one part.
    pub header_bytes: usize,
    /// Bytes of the content of one part.
    pub part_bytes: u64,
    /// Parts.
    pub parts: usize,
}

/// The header lines of a part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartHeaders {
    /// Names in lower case, and values.
    lines: Vec<(String, String)>,
}

impl PartHeaders {
    /// The value of a header by its name in lower case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let line = self.lines.iter().find(|(line, _)| line == name)?;
        Some(&line.1)
    }

    /// The media type without parameters, in lower case; empty when there is none.
    #[must_use]
    pub fn media_type(&self) -> String {
        let value = self.get("content-type").unwrap_or_default();
        value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    /// Reads the lines of a head; a line that begins with white space continues the one before.
    fn parse(head: &[u8], part: usize) -> Result<PartHeaders, MultipartError> {
        let text = String::from_utf8_lossy(head);
        let mut lines: Vec<(String, String)> = Vec::new();
        for line in text.split("\r\n").filter(|line| !line.is_empty()) {
            if line.starts_with([' ', '\t']) {
                let last = lines.last_mut().ok_or(MultipartError::BrokenHeader { part })?;
                last.1.push(' ');
                last.1.push_str(line.trim());
                continue;
            }
            let (name, value) = line.split_once(':').ok_or(MultipartError::BrokenHeader { part })?;
            lines.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
        Ok(PartHeaders { lines })
    }
}

/// What comes next in a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A part begins.
    Part(PartHeaders),
    /// Content of the part that began; never empty.
    Data(Bytes),
    /// The part is whole.
    PartEnd,
    /// The closing boundary came; what follows is passed over.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the first boundary: what comes is dropped.
    Preamble,
    /// Inside the content of a part.
    Content,
    /// Behind a delimiter.
    Delimited(Behind),
    /// Inside the head of a part.
    Head,
    /// Behind the closing boundary.
    Epilogue,
}

/// What was seen behind a delimiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    Nothing,
    Hyphen,
    Padding,
    CarriageReturn,
}

/// Reads a body chunk by chunk: [`push`](Parser::push) a chunk, then take [`next`](Parser::next) until it gives `None`, and [`finish`](Parser::finish) when
/// no chunk is left.
#[derive(Debug)]
pub struct Parser {
    delimiter: Bytes,
    finder: memmem::Finder<'static>,
    limits: PartLimits,
    state: State,
    /// What is left of the chunk.
    chunk: Bytes,
    /// So many bytes of the delimiter were seen at the end of the chunk before.
    matched: usize,
    /// So many of them belong to what stands before the content.
    not_content: usize,
    /// The head so far, with the line end of the boundary in front.
    head: Vec<u8>,
    parts: usize,
    part_bytes: u64,
}

impl Parser {
    /// A parser at the start of a body.
    #[must_use]
    pub fn new(boundary: &Boundary, limits: PartLimits) -> Parser {
        Parser {
            delimiter: boundary.delimiter.clone(),
            finder: memmem::Finder::new(&boundary.delimiter).into_owned(),
            limits,
            state: State::Preamble,
            chunk: Bytes::new(),
            // The first boundary may stand at the very start, without a line end before it.
            matched: 2,
            not_content: 2,
            head: Vec::new(),
            parts: 0,
            part_bytes: 0,
        }
    }

    /// Hands over the next chunk. What was left of the one before is kept before it (and copied, so take every event first).
    pub fn push(&mut self, chunk: Bytes) {
        if self.chunk.is_empty() {
            self.chunk = chunk;
        } else {
            self.chunk = [&self.chunk[..], &chunk[..]].concat().into();
        }
    }

    /// The next event, or `None` when another chunk is needed.
    ///
    /// # Errors
    /// A body that breaks the syntax or a limit; nothing more can be read from it then.
    #[expect(clippy::should_implement_trait, reason = "None means: push more, not: it is over")]
    pub fn next(&mut self) -> Result<Option<Event>, MultipartError> {
        while !self.chunk.is_empty() {
            let event = match self.state {
                State::Preamble | State::Content => self.content()?,
                State::Delimited(behind) => self.behind_delimiter(behind)?,
                State::Head => self.part_head()?,
                State::Epilogue => {
                    self.chunk.clear();
                    None
                }
            };
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    /// Says that no chunk is left.
    ///
    /// # Errors
    /// [`MultipartError::Unclosed`] when the closing boundary did not come.
    pub fn finish(&self) -> Result<(), MultipartError> {
        match self.state {
            State::Epilogue => Ok(()),
            _ => Err(MultipartError::Unclosed),
        }
    }

    /// How many parts began.
    #[must_use]
    pub fn parts(&self) -> usize {
        self.parts
    }

    /// Content up to the next delimiter. A carriage return stands only at the start of a delimiter, so a match that breaks off cannot hide another one.
    fn content(&mut self) -> Result<Option<Event>, MultipartError> {
        if self.matched > 0 {
            let wanted = &self.delimiter[self.matched..];
            let same = wanted.iter().zip(&self.chunk[..]).take_while(|(a, b)| a == b).count();
            if same == wanted.len() {
                let _ = self.chunk.split_to(same);
                return Ok(self.delimiter_seen());
            }
            if same == self.chunk.len() {
                self.matched += same;
                self.chunk.clear();
                return Ok(None);
            }
            // It was content after all: the same bytes as the delimiter's.
            let content = self.delimiter.slice(self.not_content..self.matched);
            (self.matched, self.not_content) = (0, 0);
            return self.data(content);
        }
        if let Some(at) = self.finder.find(&self.chunk) {
            if at > 0 {
                let content = self.chunk.split_to(at);
                return self.data(content);
            }
            let _ = self.chunk.split_to(self.delimiter.len());
            return Ok(self.delimiter_seen());
        }
        let from = self.chunk.len().saturating_sub(self.delimiter.len() - 1);
        let end = memrchr(b'\r', &self.chunk[from..])
            .map(|at| from + at)
            .filter(|at| self.delimiter.starts_with(&self.chunk[*at..]))
            .unwrap_or(self.chunk.len());
        self.matched = self.chunk.len() - end;
        let content = self.chunk.split_to(end);
        self.chunk.clear();
        self.data(content)
    }

    /// Content as an event, unless it is empty or stands before the first boundary.
    fn data(&mut self, content: Bytes) -> Result<Option<Event>, MultipartError> {
        if self.state == State::Preamble || content.is_empty() {
            return Ok(None);
        }
        self.part_bytes = self.part_bytes.saturating_add(content.len() as u64);
        if self.part_bytes > self.limits.part_bytes {
            return Err(MultipartError::PartTooLong {
                part: self.parts,
                limit: self.limits.part_bytes,
            });
        }
        Ok(Some(Event::Data(content)))
    }

    fn delimiter_seen(&mut self) -> Option<Event> {
        let ended = self.state == State::Content;
        (self.matched, self.not_content) = (0, 0);
        self.state = State::Delimited(Behind::Nothing);
        ended.then_some(Event::PartEnd)
    }

    /// Two hyphens close the body; a line end, perhaps after white space, begins the head of a part.
    fn behind_delimiter(&mut self, behind: Behind) -> Result<Option<Event>, MultipartError> {
        // `next` calls only with a chunk that is not empty.
        let byte = self.chunk.split_to(1)[0];
        let behind = match (behind, byte) {
            (Behind::Nothing, b'-') => Behind::Hyphen,
            (Behind::Hyphen, b'-') => {
                self.state = State::Epilogue;
                return Ok(Some(Event::End));
            }
            (Behind::Nothing | Behind::Padding, b' ' | b'\t') => Behind::Padding,
            (Behind::Nothing | Behind::Padding, b'\r') => Behind::CarriageReturn,
            (Behind::CarriageReturn, b'\n') => {
                if self.parts == self.limits.parts {
                    return Err(MultipartError::TooManyParts(self.limits.parts));
                }
                self.parts += 1;
                self.part_bytes = 0;
                self.head.clear();
                self.head.extend_from_slice(b"\r\n");
                self.state = State::Head;
                return Ok(None);
            }
            _ => return Err(MultipartError::BrokenDelimiter),
        };
        self.state = State::Delimited(behind);
        Ok(None)
    }

    /// The head of a part ends with an empty line; it may be nothing but that.
    fn part_head(&mut self) -> Result<Option<Event>, MultipartError> {
        const LINE_ENDS: usize = 6;
        let room = (self.limits.header_bytes + LINE_ENDS).saturating_sub(self.head.len());
        let take = self.chunk.len().min(room);
        // Only as far as a line end at a time, so that content is not copied.
        let take = memchr(b'\n', &self.chunk[..take]).map_or(take, |at| at + 1);
        if take == 0 {
            return Err(MultipartError::HeadTooLong {
                part: self.parts,
                limit: self.limits.header_bytes,
            });
        }
        self.head.extend_from_slice(&self.chunk.split_to(take));
        if !self.head.ends_with(b"\r\n\r\n") {
            return Ok(None);
        }
        let headers = PartHeaders::parse(&self.head, self.parts)?;
        // The empty line may be the line end of a delimiter as well: the part has no content then.
        (self.matched, self.not_content) = (2, 2);
        self.state = State::Content;
        Ok(Some(Event::Part(headers)))
    }
}

/// The frame around the parts of a body that is sent: its Content-Type, what stands before each part, and what closes it.
#[derive(Clone, Debug)]
pub struct Writer {
    boundary: String,
    begun: bool,
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

impl Writer {
    /// A writer with a random boundary of 36 characters.
    #[must_use]
    pub fn new() -> Writer {
        Writer {
            boundary: uuid::Uuid::new_v4().to_string(),
            begun: false,
        }
    }

    /// The Content-Type of the body.
    #[must_use]
    pub fn content_type(&self) -> String {
        format!(
            "multipart/related; type=\"application/dicom\"; boundary={}",
            self.boundary
        )
    }

    /// What stands before the content of the next part.
    pub fn part(&mut self, content_type: &str, length: Option<u64>) -> Bytes {
        let line_end = if self.begun { "\r\n" } else { "" };
        self.begun = true;
        let length = length.map_or_else(String::new, |length| format!("Content-Length: {length}\r\n"));
        format!(
            "{line_end}--{}\r\nContent-Type: {content_type}\r\n{length}\r\n",
            self.boundary
        )
        .into()
    }

    /// What closes the body.
    #[must_use]
    pub fn close(&self) -> Bytes {
        let line_end = if self.begun { "\r\n" } else { "" };
        format!("{line_end}--{}--\r\n", self.boundary).into()
    }

    /// A whole body of DICOM instances, for small ones.
    #[must_use]
    pub fn whole<P: AsRef<[u8]>>(mut self, parts: impl IntoIterator<Item = P>) -> Bytes {
        let mut body = Vec::new();
        for part in parts {
            let part = part.as_ref();
            body.extend_from_slice(&self.part("application/dicom", Some(part.len() as u64)));
            body.extend_from_slice(part);
        }
        body.extend_from_slice(&self.close());
        body.into()
    }
}

#[cfg(test)]
mod tests;
