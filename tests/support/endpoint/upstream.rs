//! Upstream: an endpoint that somebody else wrote, behind the one that fails on purpose.
//!
//! Invariant: a call is handed on at most once, so that nothing comes twice but by the client's doing; what
//! the endpoint behind answers is told as it is.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::http::{Answer, Head};

/// The way to the endpoint behind: one connection, made anew where it has ended.
#[derive(Debug)]
pub(super) struct Upstream {
    address: SocketAddr,
    connection: Option<BufReader<TcpStream>>,
}

impl Upstream {
    /// Connects at the first call.
    pub(super) fn new(address: SocketAddr) -> Self {
        Self { address, connection: None }
    }

    /// Has a call carried out. Where the endpoint behind cannot be reached, or goes away meanwhile, the call
    /// has failed as calls of Kinesis do: it proves nothing.
    pub(super) fn call(&mut self, head: &Head, body: &[u8]) -> Answer {
        self.exchange(head, body).unwrap_or_else(|error| {
            self.connection = None;
            Answer::error(500, "InternalFailure", &error.to_string())
        })
    }

    fn exchange(&mut self, head: &Head, body: &[u8]) -> io::Result<Answer> {
        let mut connection = if let Some(connection) = self.connection.take() {
            connection
        } else {
            let socket = TcpStream::connect(self.address)?;
            socket.set_nodelay(true)?;
            BufReader::with_capacity(64 * 1024, socket)
        };
        let mut request = format!(
            "POST / HTTP/1.1\r\nHost: {}\r\nContent-Type: application/x-amz-json-1.1\r\n\
             X-Amz-Target: {}\r\nX-Amz-Date: {}\r\nAuthorization: {}\r\nContent-Length: {}\r\n\r\n",
            self.address,
            head.target,
            head.date.as_deref().unwrap_or_default(),
            head.authorization.as_deref().unwrap_or_default(),
            body.len(),
        )
        .into_bytes();
        request.extend_from_slice(body);
        connection.get_mut().write_all(&request)?;
        let (status, length) = read_head(&mut connection)?;
        let mut body = vec![0; length];
        connection.read_exact(&mut body)?;
        self.connection = Some(connection);
        Ok(Answer { status, error: None, body })
    }
}

/// Returns the status and the length of the body that follows.
fn read_head(connection: &mut impl BufRead) -> io::Result<(u16, usize)> {
    let broken = || io::Error::from(io::ErrorKind::InvalidData);
    let mut line = String::new();
    connection.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let mut length = None;
    loop {
        line.clear();
        if connection.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some((name, value)) = line.split_once(':') else {
            return Ok((status.ok_or_else(broken)?, length.ok_or_else(broken)?));
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok();
        }
    }
}
