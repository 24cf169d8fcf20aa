//! The `lab` command serves what it prints, and ends with its standard input or a signal.

use std::{
    error::Error,
    io::{BufRead, BufReader},
    net::TcpStream,
    process::{Child, Command, Stdio},
};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[test]
fn it_serves_until_its_input_ends() -> Result<()> {
    let (mut lab, printed) = serve(&["--lifetime", "20", "--pem", "ecdsa-p256:thing-1"])?;
    let s3 = printed["s3"]["endpoint"].as_str().ok_or("no endpoint")?;
    TcpStream::connect(s3.trim_start_matches("http://"))?;
    let endpoint = printed["endpoint"].as_str().ok_or("no endpoint")?;
    TcpStream::connect(endpoint.replace("localhost", "127.0.0.1"))?;
    let key = printed["devices"][0]["private_key"]
        .as_str()
        .ok_or("no device")?;
    assert!(std::fs::exists(key)?);

    drop(lab.stdin.take());
    assert!(lab.wait()?.success());
    assert!(!std::fs::exists(key)?, "the lab left its files behind");
    Ok(())
}

#[test]
fn it_ends_with_a_signal() -> Result<()> {
    let (mut lab, _) = serve(&["--bind", "127.0.0.2"])?;
    kill(Pid::from_raw(lab.id().try_into()?), Signal::SIGTERM)?;
    assert!(lab.wait()?.success());
    Ok(())
}

#[test]
fn a_wrong_option_is_named() -> Result<()> {
    let output = Command::new(env!("CARGO_BIN_EXE_lab"))
        .args(["serve", "--port", "1"])
        .output()?;
    assert!(!output.status.success());
    assert!(String::from_utf8(output.stderr)?.contains("--port is not an option"));
    Ok(())
}

fn serve(options: &[&str]) -> Result<(Child, Value)> {
    let mut lab = Command::new(env!("CARGO_BIN_EXE_lab"))
        .arg("serve")
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    let stdout = lab.stdout.take().ok_or("no standard output")?;
    BufReader::new(stdout).read_line(&mut line)?;
    Ok((lab, serde_json::from_str(&line)?))
}
