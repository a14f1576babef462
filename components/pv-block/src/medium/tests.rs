use virtio::chain::{Cursor, Segment};
use virtio::ram::Ram;

use super::{Sink, Source};

#[test]
fn data_passes_through_memory_of_a_device() {
    let (guest, device) = (Ram::for_test(0x2000), Ram::for_test(0x1000));
    guest.write(0x100, &[7; 600]).unwrap();
    let room = Segment { gpa: 0x200, len: 512 };
    let scattered = [Segment { gpa: 0x100, len: 3 }, Segment { gpa: 0x110, len: 509 }];
    assert!(Sink::Memory(&device, room).fill(&guest, &mut Cursor::new(&scattered)));
    let to = [Segment { gpa: 0x1001, len: 512 }];
    assert!(Source::Memory(&device, room).deliver(&guest, &mut Cursor::new(&to)));
    assert_eq!(guest.read_array::<514>(0x1000).unwrap()[..], [&[0][..], &[7; 512], &[0]].concat());
    assert!(Sink::Memory(&device, room).clear());
    assert_eq!(device.read_array::<512>(0x200), Ok([0; 512]));
}

#[test]
fn too_little_is_told() {
    let (guest, device) = (Ram::for_test(0x1000), Ram::for_test(0x1000));
    let room = Segment { gpa: 0, len: 512 };
    let small = [Segment { gpa: 0, len: 511 }];
    assert!(!Sink::Memory(&device, room).fill(&guest, &mut Cursor::new(&small)));
    assert!(!Source::Memory(&device, room).deliver(&guest, &mut Cursor::new(&small)));
    assert!(!Sink::Bytes(&mut [0; 512]).fill(&guest, &mut Cursor::new(&small)));
    for source in [Source::Bytes(&[0; 512]), Source::Memory(&device, room)] {
        assert!(source.part(500, 12).is_some());
        assert!(source.part(500, 13).is_none());
        assert!(source.part(513, 0).is_none());
    }
}
