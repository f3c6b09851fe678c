//! Connections that are held, cut off, or opened with a head that is none.

use super::*;

#[tokio::test]
async fn heads_that_never_end_are_closed_and_others_are_served_meanwhile() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let target = Target::up(&url, &[("HILUM_SERVICE__HEAD_SECONDS", "2.0")]).await;
        let mut dripping = Vec::new();
        for number in 0..200 {
            let mut stream = target.connect().await;
            // Every fourth one says nothing at all.
            let slow = number % 4 > 0;
            if slow {
                let head = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ";
                stream.write_all(head).await.unwrap();
            }
            let drop: &[u8] = if slow { b"a" } else { b"" };
            dripping.push(tokio::spawn(drip(stream, drop, Duration::from_millis(200))));
        }
        for _ in 0..5 {
            target.lives().await;
            sleep(Duration::from_millis(200)).await;
        }
        for ended in join_all(dripping).await {
            let (_, after) = ended.unwrap();
            assert!(after < Duration::from_secs(15), "{after:?}");
        }
        target.ends_unharmed(1).await;
    })
    .await;
}

#[tokio::test]
async fn uploads_that_drip_lose_their_places_with_408() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let settings = [
            ("HILUM_INBOX__MAX_UPLOADS", "2"),
            ("HILUM_INBOX__LONGEST_UPLOAD_SECONDS", "4.0"),
        ];
        let target = Target::up(&url, &settings).await;
        let mut dripping = Vec::new();
        for _ in 0..2 {
            let mut stream = target.connect().await;
            let head = target.head("Content-Length: 1000000000\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            let first = multipart(&[ct("1.2.3", "1.2.3.5", "1.2.4.9", 0)]);
            stream.write_all(&first[..first.len() - 40]).await.unwrap();
            // Enough in a minute not to be taken for one that sleeps.
            dripping.push(tokio::spawn(drip(stream, &[0; 200], Duration::from_millis(100))));
        }
        sleep(Duration::from_secs(1)).await;
        let refused = target.good_upload().await;
        assert_eq!(refused.status(), 503);
        assert!(refused.headers().contains_key("retry-after"));
        for ended in join_all(dripping).await {
            let (answer, after) = ended.unwrap();
            assert_eq!(status(&answer), 408, "{answer}");
            assert!(answer.contains("too_slow"), "{answer}");
            assert!(after < Duration::from_secs(15), "{after:?}");
        }
        target.ends_unharmed(1).await;
    })
    .await;
}

#[tokio::test]
async fn bodies_of_questions_that_drip_are_answered_408_and_others_are_served_meanwhile() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let target = Target::up(&url, &[("HILUM_SERVICE__HEAD_SECONDS", "2.0")]).await;
        let port = target.service.port;
        let mut dripping = Vec::new();
        for (method, path) in [("POST", "/api/v1/jobs"), ("GET", "/api/v1/jobs"), ("POST", "/api/v1/queue/pause")] {
            let head = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n{{");
            for number in 0..40 {
                let mut stream = target.connect().await;
                stream.write_all(head.as_bytes()).await.unwrap();
                // Every fourth one says nothing more.
                let drop: &[u8] = if number % 4 > 0 { b" " } else { b"" };
                dripping.push(tokio::spawn(drip(stream, drop, Duration::from_millis(100))));
            }
        }
        target.lives().await;
        for ended in join_all(dripping).await {
            let (answer, after) = ended.unwrap();
            assert_eq!(status(&answer), 408, "{answer}");
            assert!(answer.contains("too_slow"), "{answer}");
            assert!(after < Duration::from_secs(15), "{after:?}");
        }
        // And one that is too long is not read to its end.
        let head = format!("POST /api/v1/jobs HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nContent-Length: 1000000000\r\n\r\n");
        let answer = target.answer(&[head.as_bytes(), &[b' '; 1 << 20]].concat()).await;
        assert_eq!(status(&answer), 413, "{answer}");
        assert!(answer.contains("too_large"), "{answer}");
        target.ends_unharmed(1).await;
    })
    .await;
}

#[tokio::test]
async fn absurd_heads_of_requests_are_refused() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let target = Target::up(&url, &[]).await;
        let long = "a".repeat(1 << 20);
        let many = (0..5000).fold(String::new(), |lines, number| lines + &format!("X-{number}: 1\r\n"));
        let tls = "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}".repeat(50);
        for (bytes, wanted) in [
            (target.head(&format!("X-Long: {long}\r\n")), [431, 400]),
            (target.head(&many), [431, 400]),
            (format!("GET /{long} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"), [414, 431]),
            (target.head("Content-Length: 99999999999999999999\r\n"), [400, 400]),
            (target.head("Content-Length: 5\r\nContent-Length: 6\r\n"), [400, 400]),
            (target.head("Content-Length: -1\r\n"), [400, 400]),
            (target.head("Content-Length: 18446744073709551615\r\n"), [431, 413]),
            (target.head("Content-Length: 17179869185\r\n"), [413, 413]),
            // Nothing is inflated for anybody.
            (
                target.head("Content-Encoding: gzip\r\nContent-Length: 1048576\r\n"),
                [415, 415],
            ),
            (tls, [400, 400]),
        ] {
            let answer = target.answer(bytes.as_bytes()).await;
            assert!(wanted.contains(&status(&answer)), "{answer}");
        }
        target.ends_unharmed(1).await;
    })
    .await;
}

#[tokio::test]
async fn connections_that_are_closed_by_half_hold_no_place() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let target = Target::up(&url, &[("HILUM_INBOX__MAX_UPLOADS", "4")]).await;
        let body = multipart(&[ct("1.2.3", "1.2.3.5", "1.2.4.1", 0)]);
        let head = target.head(&format!("Content-Length: {}\r\n", body.len()));
        let whole = [head.as_bytes(), &body[..]].concat();
        let head = head.len();
        for length in [0, 20, head, head + 100, whole.len() - 1, whole.len()] {
            for _ in 0..4 {
                let ended = (0..4).map(|_| async {
                    let mut stream = target.connect().await;
                    stream.write_all(&whole[..length]).await.unwrap();
                    stream.shutdown().await.unwrap();
                    timeout(SOON, read_to_end(&mut stream))
                        .await
                        .expect("the connection is closed")
                });
                for answer in join_all(ended).await {
                    let fits = [200, 400, 503];
                    assert!(
                        answer.is_empty() || fits.contains(&status(&answer)),
                        "{length}: {answer}"
                    );
                }
            }
        }
        // And some that are cut off hard, their answers unread.
        for _ in 0..20 {
            let mut stream = target.connect().await;
            stream.write_all(&whole[..head + 100]).await.unwrap();
            stream.set_zero_linger().unwrap();
        }
        eventually("the places to be free", || async {
            (target.good_upload().await.status() == 200).then_some(())
        })
        .await;
        target.ends_unharmed(1).await;
    })
    .await;
}
