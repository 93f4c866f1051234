//! The output of a stream, on its own thread because it may be slow.

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::base::blocking::joined;
use crate::base::error::{self, Error, Result};
use crate::oci::Descriptor;

/// Number of pieces that may wait for the sink.
const WAITING: usize = 4;

/// What the following bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Headers, JSON, padding.
    Plain,
    /// A blob that may be compressed further.
    Blob,
    /// A blob that is already compressed.
    Packed,
}

impl Section {
    /// According to the media type.
    pub fn of(blob: &Descriptor) -> Section {
        let media_type = blob.media_type.as_str();
        let packed = ["gzip", "+zstd", "tar+gz", ".tgz"].iter().any(|word| media_type.contains(word));
        if packed { Section::Packed } else { Section::Blob }
    }
}

/// Receives the bytes of a stream in order.
pub trait StreamSink: Send {
    /// Announces the kind of the following bytes.
    fn begin(&mut self, section: Section) -> Result<()>;

    fn write(&mut self, bytes: &[u8]) -> Result<()>;

    /// Ends a complete stream; not called otherwise.
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

    /// Announces the kind of the following bytes.
    ///
    /// # Errors
    /// The sink accepts nothing more; [`Pipe::finish`] says why.
    pub async fn begin(&mut self, section: Section) -> Result<()> {
        if std::mem::replace(&mut self.section, section) == section {
            return Ok(());
        }
        self.send(Message::Begin(section)).await
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// As for [`Pipe::begin`].
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

    /// Waits until everything is written; with `complete`, also ends the stream.
    ///
    /// # Errors
    /// The sink failed.
    pub async fn finish(mut self, complete: bool) -> Result<()> {
        if complete {
            // The error is reported below.
            let _ = self.send(Message::End).await;
        }
        if !complete && !self.failed {
            // No one waits for it.
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
