//! Tests storages that are slow, or do not answer.

use std::time::{Duration, Instant};

use object_store::path::Path;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::StreamExt;

use super::*;

/// Returns a listener, and a backend for its address as an S3 storage.
async fn listen(limits: BackendLimits) -> (TcpListener, Backend) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let environment = [
        ("AWS_ENDPOINT", endpoint.as_str()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    (listener, Backend::new("s3://bucket", environment, limits).unwrap())
}

fn storage(backend: Backend, patience: Duration) -> ObjectStorage {
    // Credentials that can't sign have the same effect.
    ObjectStorage(Arc::new(Inner { patience, ..Inner::new(Backend { signer: None, ..backend }) }))
}

#[tokio::test]
async fn nobody_is_left_waiting() {
    // The system accepts connections for the listener, which never answers.
    let (_listener, backend) = listen(BackendLimits::default()).await;
    let storage = storage(backend, Duration::from_millis(100));
    let begin = Instant::now();
    let digest = BlobDigest::new(Digest::of(b""));
    let key = ImageKey::new(&"tag".parse().unwrap(), "");
    let errors = [
        storage.image(&"name".parse().unwrap(), &key).await.err(),
        storage.document(&digest).await.err(),
        storage.blob(&digest, None).await.err(),
    ];
    for error in errors {
        let error = error.unwrap();
        assert!(matches!(error, StorageError::Unreachable { .. }), "{error}");
        assert!(error.to_string().ends_with("nothing came within 100ms"), "{error}");
    }
    assert!(begin.elapsed() < Duration::from_secs(10));
}

/// Announces ten bytes, and sends some of them, one after each pause.
async fn drip(mut stream: TcpStream, pause: Duration, bytes: usize) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let reads = head.starts_with(b"GET");
    let status = if reads { "206 Partial Content" } else { "200 OK" };
    let answer = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 10\r\n\
         Content-Range: bytes 0-9/10\r\nETag: \"x\"\r\n\
         Last-Modified: Tue, 01 Jan 2030 00:00:00 GMT\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
    if !reads {
        return;
    }
    for _ in 0..bytes {
        tokio::time::sleep(pause).await;
        stream.write_all(b"x").await.unwrap();
    }
    // Keep the connection open, and send nothing.
    std::future::pending().await
}

#[tokio::test]
async fn only_silence_ends_what_is_passed_on() {
    let silence = Duration::from_secs(1);
    let limits = BackendLimits { request: silence, retrying: Duration::ZERO, silence };
    // The pause is well below the limit on any machine.
    let pause = silence / 4;
    for sent in [10, 5] {
        let (listener, backend) = listen(limits).await;
        let storage = storage(backend, Duration::from_secs(10));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(drip(stream, pause, sent));
            }
        });
        let begin = Instant::now();
        let source =
            storage.blob(&BlobDigest::new(Digest::of(b"xxxxxxxxxx")), None).await.unwrap().unwrap();
        let BlobSource::Stream { mut body, size: 10, .. } = source else { panic!("{source:?}") };
        let (mut bytes, mut error) = (0, None);
        while let Some(chunk) = body.next().await {
            match chunk {
                Ok(chunk) => bytes += chunk.len(),
                Err(found) => {
                    error = Some(found);
                    break;
                }
            }
        }
        assert_eq!(bytes, sent, "{error:?}");
        if sent == 10 {
            // Reading took longer than the limit for a silence, but no silence was that long.
            assert!(begin.elapsed() > 2 * silence);
            assert!(error.is_none(), "{error:?}");
        } else {
            assert_eq!(error.unwrap().to_string(), "the storage sent nothing for 1s");
        }
        assert!(begin.elapsed() < Duration::from_secs(20));
    }
}

/// Checks that a client that stops reading does not count as a silence of the storage.
#[tokio::test]
async fn a_slow_client_is_no_silent_storage() {
    let silence = Duration::from_millis(500);
    let limits = BackendLimits { request: silence, retrying: Duration::ZERO, silence };
    let (listener, backend) = listen(limits).await;
    let storage = storage(backend, Duration::from_secs(10));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(drip(stream, Duration::from_millis(1), 10));
        }
    });
    let source =
        storage.blob(&BlobDigest::new(Digest::of(b"xxxxxxxxxx")), None).await.unwrap().unwrap();
    let BlobSource::Stream { mut body, .. } = source else { panic!("{source:?}") };
    let mut bytes = 0;
    while let Some(chunk) = body.next().await {
        bytes += chunk.unwrap().len();
        if bytes < 10 {
            tokio::time::sleep(2 * silence).await;
        }
    }
    assert_eq!(bytes, 10);
}

#[tokio::test]
async fn what_is_written_is_waited_for_so_long() {
    let request = Duration::from_millis(200);
    let limits = BackendLimits { request, retrying: Duration::ZERO, ..BackendLimits::default() };
    let (_listener, backend) = listen(limits).await;
    let storage = storage(backend, Duration::from_secs(10));
    let begin = Instant::now();
    let object = Path::from("object");
    let error = storage.0.put(&object, b"text".to_vec().into()).await.unwrap_err();
    assert!(matches!(error, StorageError::Unreachable { .. }), "{error}");
    assert!(storage.0.head(&object).await.is_err());
    assert!(begin.elapsed() < Duration::from_secs(5));
}
