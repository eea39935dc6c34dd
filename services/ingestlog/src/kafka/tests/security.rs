//! TLS, and a user with a password.

use cambium_runtime::secret::Secret;

use super::*;
use crate::kafka::config::{Mechanism, Protocol, Security};

#[tokio::test]
async fn a_user_with_the_right_password_comes_in_over_tls() {
    let Some(broker) = Kafka::secured() else { return };
    let guarded = broker.guarded().clone();
    let folder = tempfile::tempdir().unwrap();
    let password_file = folder.path().join("password");
    std::fs::write(&password_file, format!("{}\n", guarded.password)).unwrap();
    let good = Security {
        protocol: Protocol::SaslSsl,
        ca_file: Some(guarded.ca_file.clone()),
        mechanism: Mechanism::ScramSha512,
        user: guarded.user.to_owned(),
        password_file: Some(password_file),
        ..Security::default()
    };
    let with = |security: Security| Config { security, ..config(&guarded.address, "secured") };
    let node = Node::with(with(good.clone()));
    assert!(ensure_topic(&node.config, 1, &*node.clock).await.unwrap());
    let log = node.log(0).await;
    log.append("secret".into()).await.unwrap();
    assert_eq!(log.read(Offset(0), 100).await.unwrap().len(), 1);

    let refused = async |security: Security, expected: &str| {
        let error = ensure_topic(&with(security), 1, &*node.clock).await.unwrap_err();
        let said = format!("{error:?}");
        assert!(said.contains(expected), "{expected} is not in {said}");
        assert!(!said.contains("hunter2"), "{said}");
    };
    let wrong = Security { password_file: None, password: Some(Secret::new("hunter2")), ..good.clone() };
    refused(wrong, "Authentication failed").await;
    refused(Security { ca_file: None, ..good.clone() }, "certificate verify failed").await;
    refused(Security { password_file: Some("/nowhere".into()), ..good }, "No such file").await;
}
