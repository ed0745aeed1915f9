//! Just enough HTTP/1.1, by hand: a server library hides the moments at which this one must fail.
//!
//! Invariant: every way of ending an exchange (answered, cut, shortened) is one function here, so
//! that what a client saw is known exactly.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// The longest head (request line and headers) that is read.
const HEAD_MAX: u64 = 64 * 1024;

/// The head of a request: the parts that the endpoint looks at.
#[derive(Debug, Default)]
pub struct Head {
    /// `POST` and the like.
    pub method: String,
    /// `Content-Length`; `None` where there is none (a chunked body among others).
    pub content_length: Option<usize>,
    /// `X-Amz-Target`.
    pub target: String,
    /// `Authorization`.
    pub authorization: Option<String>,
    /// `X-Amz-Date`, which goes with it.
    pub date: Option<String>,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// Whether the client asked for the connection to end after the answer.
    pub closes: bool,
}

/// An answer, whole.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The error's short name, for the `x-amzn-ErrorType` header.
    pub error: Option<&'static str>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Returns the answer to a call that worked.
    #[must_use]
    pub fn ok(body: Vec<u8>) -> Self {
        Self { status: 200, error: None, body }
    }

    /// Returns an error in the form of awsJson1.1.
    #[must_use]
    pub fn error(status: u16, kind: &'static str, message: &str) -> Self {
        let body = serde_json::json!({ "__type": kind, "message": message });
        Self { status, error: Some(kind), body: body.to_string().into_bytes() }
    }

    /// Writes the head that announces `length` bytes of body.
    fn head(&self, request: u64, length: usize) -> Vec<u8> {
        let reason = if self.status == 200 { "OK" } else { "Error" };
        let mut head = format!(
            "HTTP/1.1 {} {reason}\r\nContent-Type: application/x-amz-json-1.1\r\n\
             Content-Length: {length}\r\n\
             x-amzn-RequestId: 6b696e65-0000-4000-8000-{request:012x}\r\n",
            self.status,
        );
        if let Some(kind) = self.error {
            head.push_str("x-amzn-ErrorType: ");
            head.push_str(kind);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        head.into_bytes()
    }
}

/// The server's side of one connection.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Takes over an accepted socket.
    ///
    /// # Errors
    /// The socket refuses an option.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::with_capacity(64 * 1024, stream) })
    }

    /// Reads the head of the next request; `None` where the client has closed the connection.
    ///
    /// # Errors
    /// The connection broke, or what came is not HTTP.
    pub fn read_head(&mut self) -> io::Result<Option<Head>> {
        let mut head = Head::default();
        let mut budget = (&mut self.stream).take(HEAD_MAX);
        let mut line = String::new();
        if budget.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        head.method.push_str(line.split(' ').next().unwrap_or_default());
        loop {
            line.clear();
            if budget.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let Some((name, value)) = line.split_once(':') else {
                return Ok(Some(head));
            };
            head.take_header(&name.to_ascii_lowercase(), value.trim());
        }
    }

    /// Reads a body of `length` bytes; at most `rate` bytes a second where that is given.
    ///
    /// # Errors
    /// The connection broke.
    pub fn read_body(&mut self, length: usize, rate: Option<u64>) -> io::Result<Vec<u8>> {
        let mut body = vec![0; length];
        let Some(rate) = rate else {
            self.stream.read_exact(&mut body)?;
            return Ok(body);
        };
        // Twenty pieces a second: the client's writes block on a window that hardly opens.
        let piece = usize::try_from(rate / 20).unwrap_or(usize::MAX).max(1);
        for part in body.chunks_mut(piece) {
            self.stream.read_exact(part)?;
            let nanoseconds = part.len() as u64 * 1_000_000_000 / rate.max(1);
            std::thread::sleep(Duration::from_nanos(nanoseconds));
        }
        Ok(body)
    }

    /// Tells the client to go on with its body.
    ///
    /// # Errors
    /// The connection broke.
    pub fn say_continue(&mut self) -> io::Result<()> {
        self.stream.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
    }

    /// Returns whether the client has closed its end: an answer would not reach it any more.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        let socket = self.stream.get_ref();
        let peeked = socket.set_nonblocking(true).and_then(|()| socket.peek(&mut [0]));
        let gone = match peeked {
            Ok(count) => count == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        };
        socket.set_nonblocking(false).is_err() || gone
    }

    /// Writes the whole answer.
    ///
    /// # Errors
    /// The connection broke.
    pub fn answer(&mut self, request: u64, answer: &Answer) -> io::Result<()> {
        let mut bytes = answer.head(request, answer.body.len());
        bytes.extend_from_slice(&answer.body);
        self.stream.get_mut().write_all(&bytes)
    }

    /// Writes the head and the first half of the body, then cuts. With `missing`, the whole body is
    /// written under a `Content-Length` that promises so many bytes more.
    pub fn answer_partly(&mut self, request: u64, answer: &Answer, missing: Option<usize>) {
        let (announced, shown) = match missing {
            Some(more) => (answer.body.len() + more, answer.body.len()),
            None => (answer.body.len(), answer.body.len() / 2),
        };
        let mut bytes = answer.head(request, announced);
        bytes.extend_from_slice(&answer.body[..shown]);
        // The connection ends either way: whether these bytes still went out changes nothing.
        self.stream.get_mut().write_all(&bytes).ok();
        self.cut();
    }

    /// Ends the connection at once, both ways.
    pub fn cut(&mut self) {
        // A client that has gone first leaves nothing to shut down.
        self.stream.get_ref().shutdown(Shutdown::Both).ok();
    }
}

impl Head {
    /// Takes what is of interest from a header, its name in lower case.
    fn take_header(&mut self, name: &str, value: &str) {
        match name {
            "content-length" => self.content_length = value.parse().ok(),
            "x-amz-target" => self.target.push_str(value),
            "authorization" => self.authorization = Some(value.to_owned()),
            "x-amz-date" => self.date = Some(value.to_owned()),
            "expect" => self.expects_continue = value.eq_ignore_ascii_case("100-continue"),
            "connection" => self.closes = value.eq_ignore_ascii_case("close"),
            _ => {}
        }
    }
}
