//! Writer for the "newc" cpio format that Linux unpacks as its initial RAM disk
//! (Documentation/driver-api/early-userspace/buffer-format.rst in the kernel's sources).

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const TRAILER: &str = "TRAILER!!!";

/// An archive that grows by entries.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    /// An empty archive.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory; parents come before children.
    pub fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY | 0o755, &[]);
    }

    /// Adds a file that everybody may read and run.
    pub fn program(&mut self, path: &str, contents: &[u8]) {
        self.entry(path, FILE | 0o755, contents);
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, to: &str) {
        self.entry(path, LINK | 0o777, to.as_bytes());
    }

    /// Ends the archive.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.inode = 0;
        self.entry(TRAILER, 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, contents: &[u8]) {
        let links = if mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
        let inode = self.inode;
        self.inode += 1;
        // Magic, inode, mode, uid, gid, links, mtime, size, device (2), rdevice (2), name size,
        // checksum. Times are zero so that equal contents make equal archives.
        let fields = [
            u64::from(inode),
            u64::from(mode),
            0,
            0,
            links,
            0,
            contents.len() as u64,
            0,
            0,
            0,
            0,
            path.len() as u64 + 1,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(contents);
        self.align();
    }

    /// Headers and contents begin at multiples of four.
    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::Archive;

    fn field(archive: &[u8], at: usize, index: usize) -> usize {
        let start = at + 6 + 8 * index;
        let text = std::str::from_utf8(&archive[start..start + 8]).unwrap();
        usize::from_str_radix(text, 16).unwrap()
    }

    /// Mode, name and contents of every entry, read back by the format's rules.
    fn entries(archive: &[u8]) -> Vec<(usize, String, Vec<u8>)> {
        let mut out = Vec::new();
        let mut at = 0;
        while at < archive.len() {
            assert_eq!(&archive[at..at + 6], b"070701");
            let (mode, size, name) =
                (field(archive, at, 1), field(archive, at, 6), field(archive, at, 11));
            let text = &archive[at + 110..at + 110 + name - 1];
            assert_eq!(archive[at + 110 + name - 1], 0);
            let data = (at + 110 + name).next_multiple_of(4);
            let text = String::from_utf8(text.to_vec()).unwrap();
            out.push((mode, text, archive[data..data + size].to_vec()));
            at = (data + size).next_multiple_of(4);
        }
        out
    }

    #[test]
    fn entries_read_back() {
        let mut archive = Archive::new();
        archive.directory("bin");
        archive.program("bin/tool", b"12345");
        archive.link("bin/other", "tool");
        let read = entries(&archive.finish());
        let expected = [
            (0o040_755, "bin", &b""[..]),
            (0o100_755, "bin/tool", b"12345"),
            (0o120_777, "bin/other", b"tool"),
            (0, "TRAILER!!!", b""),
        ];
        assert_eq!(read.len(), expected.len());
        for (read, expected) in read.iter().zip(expected) {
            assert_eq!((read.0, read.1.as_str(), read.2.as_slice()), expected);
        }
    }

    #[test]
    fn every_length_keeps_the_alignment() {
        for size in 0..9 {
            let mut archive = Archive::new();
            archive.program("f", &vec![7; size]);
            archive.program("gg", b"x");
            let read = entries(&archive.finish());
            assert_eq!(read[0].2.len(), size);
            assert_eq!(read[1].1, "gg");
        }
    }

    #[test]
    fn equal_contents_make_equal_archives() {
        let make = || {
            let mut archive = Archive::new();
            archive.program("a", b"b");
            archive.finish()
        };
        assert_eq!(make(), make());
    }
}
