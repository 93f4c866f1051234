//! Where a stream goes, on a thread of its own: whoever takes the bytes may be slow.

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::base::blocking::joined;
use crate::base::error::{self, Error, Result};
use crate::oci::Descriptor;

/// How many pieces wait for the sink.
const WAITING: usize = 4;

/// What the bytes are that follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Headers, JSON, padding.
    Plain,
    /// The bytes of a blob that may be compressed further.
    Blob,
    /// Those of one that is compressed already.
    Packed,
}

impl Section {
    /// As far as the media type tells.
    pub fn of(blob: &Descriptor) -> Section {
        let media_type = blob.media_type.as_str();
        let packed = ["gzip", "+zstd", "tar+gz", ".tgz"].iter().any(|word| media_type.contains(word));
        if packed { Section::Packed } else { Section::Blob }
    }
}

/// Takes the bytes of a stream in their order.
pub trait StreamSink: Send {
    /// What follows is of this kind.
    fn begin(&mut self, section: Section) -> Result<()>;

    fn write(&mut self, bytes: &[u8]) -> Result<()>;

    /// That was all. Not called where it was not.
    fn finish(&mut self) -> Result<()>;
}

impl StreamSink for Box<dyn StreamSink> {
    fn begin(&mut self, section: Section) -> Result<()> {
        (**self).begin(section)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        (**self).write(bytes)
    }

    fn finish(&mut self) -> Result<()> {
        (**self).finish()
    }
}

enum Message {
    Begin(Section),
    Bytes(Bytes),
    End,
}

/// A sink on its own thread.
pub struct Pipe {
    sender: mpsc::Sender<Message>,
    thread: JoinHandle<Result<()>>,
    failed: bool,
    section: Section,
}

impl Pipe {
    pub fn to(sink: impl StreamSink + 'static) -> Pipe {
        let (sender, receiver) = mpsc::channel(WAITING);
        let thread = tokio::task::spawn_blocking(move || drain(sink, receiver));
        Pipe { sender, thread, failed: false, section: Section::Plain }
    }

    /// # Errors
    /// The sink takes nothing more; [`Pipe::finish`] says why.
    pub async fn begin(&mut self, section: Section) -> Result<()> {
        if std::mem::replace(&mut self.section, section) == section {
            return Ok(());
        }
        self.send(Message::Begin(section)).await
    }

    /// # Errors
    /// As there.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        if bytes.is_empty() { Ok(()) } else { self.send(Message::Bytes(bytes)).await }
    }

    async fn send(&mut self, message: Message) -> Result<()> {
        let sent = self.sender.send(message).await;
        sent.map_err(|_| {
            self.failed = true;
            Error::new(error::Kind::Disk, "writing a stream")
        })
    }

    /// Waits until all is written; `complete`: and says that it is all.
    ///
    /// # Errors
    /// The sink's.
    pub async fn finish(mut self, complete: bool) -> Result<()> {
        if complete {
            // What went wrong is said below.
            let _ = self.send(Message::End).await;
        }
        if !complete && !self.failed {
            // Whatever it waits for, nobody waits for it.
            return Ok(());
        }
        drop(self.sender);
        joined("writing a stream", self.thread.await)
    }
}

fn drain(mut sink: impl StreamSink, mut messages: mpsc::Receiver<Message>) -> Result<()> {
    while let Some(message) = messages.blocking_recv() {
        match message {
            Message::Begin(section) => sink.begin(section)?,
            Message::Bytes(bytes) => sink.write(&bytes)?,
            Message::End => return sink.finish(),
        }
    }
    Ok(())
}
