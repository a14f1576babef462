use super::serve;

fn ask(request: impl AsRef<[u8]>) -> String {
    let mut reply = Vec::new();
    serve(request.as_ref(), &mut reply).unwrap();
    String::from_utf8(reply).unwrap()
}

#[test]
fn page_is_served() {
    let reply = ask("GET / HTTP/1.1\r\nHost: 10.0.2.100\r\n\r\n");
    assert!(reply.starts_with("HTTP/1.0 200 OK\r\n"));
    assert!(reply.ends_with("\r\n\r\nPortico: this page comes from outside the machine.\n"));
    assert!(reply.contains("Content-Length: 51\r\n"));
}

#[test]
fn what_is_posted_comes_back() {
    let reply = ask("POST /echo HTTP/1.0\r\ncontent-length: 5\r\n\r\nhello and more");
    assert!(reply.starts_with("HTTP/1.0 200 OK\r\n") && reply.ends_with("\r\n\r\nhello"));
}

#[test]
fn everything_else_is_refused() {
    let huge = format!("GET / HTTP/1.0\r\nX: {}\r\n\r\n", "x".repeat(9000));
    for (request, status) in [
        ("", "400"),
        ("\r\n\r\n", "400"),
        ("GET /", "400"),
        ("GET / HTTP/1.0\r\n", "400"),
        (huge.as_str(), "400"),
        ("PUT / HTTP/1.0\r\n\r\n", "400"),
        ("GET /etc/passwd HTTP/1.0\r\n\r\n", "404"),
        ("GET /../secret HTTP/1.0\r\n\r\n", "404"),
        ("POST /echo HTTP/1.0\r\n\r\n", "411"),
        ("POST /echo HTTP/1.0\r\nContent-Length: -1\r\n\r\n", "411"),
        ("POST /echo HTTP/1.0\r\nContent-Length: 99999999999\r\n\r\n", "413"),
        ("POST /echo HTTP/1.0\r\nContent-Length: 9\r\n\r\nshort", "400"),
    ] {
        let reply = ask(request);
        assert!(reply.starts_with(&format!("HTTP/1.0 {status}")), "{request:?}: {reply:?}");
    }
    assert!(ask(b"\xff\xff\r\n\r\n").starts_with("HTTP/1.0 400"));
}
