//! As little of an SMTP server as takes an email (RFC 5321, appendix D).

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};

/// Starts a server that accepts every email and forgets it. Returns its URL.
pub async fn accept_everything() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
    let address = listener.local_addr().expect("address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that goes away ends its conversation, and nothing else.
            tokio::spawn(converse(stream));
        }
    });
    format!("smtp+plaintext://{address}")
}

async fn converse(stream: TcpStream) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 ready\r\n").await?;
    let mut in_content = false;
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let verb = line.trim_end().to_ascii_uppercase();
        let answer = match verb.as_str() {
            "." if in_content => {
                in_content = false;
                "250 accepted\r\n"
            }
            _ if in_content => continue,
            "DATA" => {
                in_content = true;
                "354 go on\r\n"
            }
            "QUIT" => "221 bye\r\n",
            _ => "250 ok\r\n",
        };
        stream.write_all(answer.as_bytes()).await?;
    }
}
