//! A real SIP telephone, baresip, as a child process: what its owner says lies in a file with all pauses, what was heard is recorded.

use crate::house::LIMIT;
use crate::line::spoken;
use offhook_media::LINE_RATE_HZ;
use offhook_media::wav::Wav;
use offhook_sim::provider::heard_words;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// How signalling and audio go over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// SIP over UDP, RTP in the clear.
    Udp,
    /// SIP over TCP, RTP in the clear.
    Tcp,
    /// SIP over TLS, SRTP with keys in the SDP (RFC 4568).
    Tls,
}

impl Wire {
    fn transport(self) -> &'static str {
        match self {
            Wire::Udp => "udp",
            Wire::Tcp => "tcp",
            Wire::Tls => "tls",
        }
    }
}

/// The telephone.
pub struct Softphone {
    child: Child,
    control: TcpStream,
    said: Arc<Mutex<String>>,
    folder: TempDir,
}

/// Something that its owner does while the call lasts.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    /// Says nothing for so many ms.
    Wait(u32),
    /// Says this.
    Say(&'static str),
}

impl Softphone {
    /// Takes the telephone up; it rings nobody yet.
    pub async fn open(wire: Wire, codecs: &str, acts: &[Act]) -> Softphone {
        let folder = tempfile::tempdir().unwrap();
        let (sip, control) = (free_port(), free_port());
        let mut pcm = Vec::new();
        for act in acts {
            match act {
                Act::Wait(ms) => pcm.resize(pcm.len() + *ms as usize * LINE_RATE_HZ as usize / 1_000, 0),
                Act::Say(text) => pcm.extend(spoken(text)),
            }
        }
        let speech = folder.path().join("says.wav");
        std::fs::write(&speech, Wav::mono(LINE_RATE_HZ, pcm).to_bytes()).unwrap();
        let place = folder.path().display();
        let config = format!(
            "poll_method epoll\nsip_listen 127.0.0.1:{sip}\naudio_player aufile,{place}/player.wav\naudio_source aufile,{}\n\
             audio_alert none\nausrc_srate 8000\nauplay_srate 8000\naudio_level no\nrtp_ports 30000-39998\n\
             jitter_buffer_delay 2-10\nnet_interface 127.0.0.1\nmodule_path /usr/lib/baresip/modules\nmodule g711.so\n\
             module opus.so\nmodule aufile.so\nmodule sndfile.so\nmodule srtp.so\nmodule_tmp uuid.so\nmodule_tmp account.so\n\
             module_app menu.so\nmodule_app ctrl_tcp.so\nctrl_tcp_listen 127.0.0.1:{control}\nsnd_path {place}\n",
            speech.display()
        );
        let media = if wire == Wire::Tls { ";mediaenc=srtp-mand" } else { "" };
        let account = format!(
            "<sip:phone@127.0.0.1;transport={}>;regint=0;audio_codecs={codecs}{media}\n",
            wire.transport()
        );
        std::fs::write(folder.path().join("config"), config).unwrap();
        std::fs::write(folder.path().join("accounts"), account).unwrap();
        std::fs::write(folder.path().join("contacts"), "").unwrap();
        let mut child = Command::new("baresip")
            .arg("-f")
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("baresip runs: `make setup` installs it");
        let said = Arc::new(Mutex::new(String::new()));
        listen(child.stdout.take().unwrap(), said.clone());
        listen(child.stderr.take().unwrap(), said.clone());
        let control = connected(control).await;
        Softphone { child, control, said, folder }
    }

    /// Rings somebody.
    pub async fn dial(&mut self, number: &str, at: SocketAddr, wire: Wire) {
        let uri = format!("sip:{number}@{at};transport={}", wire.transport());
        self.order("dial", &uri).await;
    }

    /// Presses keys.
    pub async fn press(&mut self, digits: &str) {
        for digit in digits.chars() {
            self.order("sndcode", &digit.to_string()).await;
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// Puts the receiver down.
    pub async fn hang_up(&mut self) {
        self.order("hangup", "").await;
    }

    /// One command in a netstring of JSON, as `ctrl_tcp` wants it.
    async fn order(&mut self, command: &str, params: &str) {
        let json = serde_json::json!({ "command": command, "params": params }).to_string();
        self.control.write_all(format!("{}:{json},", json.len()).as_bytes()).await.unwrap();
    }

    /// Waits until the telephone says so.
    pub async fn until(&self, words: &str) {
        let deadline = Instant::now() + LIMIT * 2;
        while !self.said.lock().unwrap().contains(words) {
            assert!(Instant::now() < deadline, "`{words}` was not said: {}", self.said.lock().unwrap());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the call is over, and puts the telephone away: what was heard is whole then.
    pub async fn until_over(&mut self) {
        self.until("terminated").await;
        self.order("quit", "").await;
        let _ = tokio::time::timeout(LIMIT, self.child.wait()).await.expect("baresip ends");
    }

    /// What was heard, 8 kHz.
    pub fn heard(&self) -> Vec<i16> {
        let record = recorded(self.folder.path(), "-dec.wav").expect("the call was recorded");
        let wav = Wav::parse(&std::fs::read(record).unwrap()).unwrap();
        assert_eq!(wav.rate_hz, LINE_RATE_HZ);
        wav.into_mono()
    }

    /// The words that were heard.
    pub fn heard_words(&self) -> Vec<String> {
        heard_words(&self.heard()).into_iter().map(|word| word.word).collect()
    }
}

fn recorded(folder: &Path, end: &str) -> Option<std::path::PathBuf> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.to_string_lossy().ends_with(end)).max()
}

fn listen(pipe: impl tokio::io::AsyncRead + Unpin + Send + 'static, said: Arc<Mutex<String>>) {
    tokio::spawn(async move {
        let mut lines = BufReader::new(pipe);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
            said.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    });
}

async fn connected(port: u16) -> TcpStream {
    let deadline = Instant::now() + LIMIT;
    loop {
        match TcpStream::connect(("127.0.0.1", port)).await {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < deadline, "baresip does not listen: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A port that is free for UDP and TCP, and the one after it too: TLS takes that.
pub fn free_port() -> u16 {
    (0..100)
        .find_map(|_| {
            let port = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
            let free = |port: u16| {
                UdpSocket::bind(("127.0.0.1", port)).is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok()
            };
            (port < u16::MAX && free(port) && free(port + 1)).then_some(port)
        })
        .expect("some port is free")
}
