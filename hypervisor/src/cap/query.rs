//! Asking about capabilities: what is held, and what a receiver already owns.

use ipc::cap::{Held, ObjectType, Range, Selector, Space};
use ipc::status::Status;
use ipc::utcb::Item;

use super::delegate::Request;
use super::spaces::PdSpaces;
use crate::mem::space::PortSpace;

/// What `spaces` hold at a unit of a space: type, rights and order, and the first unit of the
/// range (for an object capability its badge). Zeroes where nothing is held; for memory and ports
/// the type is always `Null`, but where something is held there are rights.
///
/// # Errors
/// `BadCap` for a selector, `BadParam` for a port that is out of range.
pub fn query(spaces: &PdSpaces, space: Space, unit: u64) -> Result<(Held, u64), Status> {
    match space {
        Space::Object if unit >= Selector::COUNT => return Err(Status::BadCap),
        Space::Port if unit >= PortSpace::PORTS => return Err(Status::BadParam),
        _ => {}
    }
    let Some(node) = spaces.covering(space, unit) else {
        return Ok((Held::new(ObjectType::Null, 0, 0), 0));
    };
    let held = Held::new(node.object_type(), node.rights(), node.order);
    Ok((held, if space == Space::Object { node.badge() } else { node.base }))
}

/// Lets the end of the capability at a selector show in [`super::Outcome::dead`]: it binds the
/// interrupt that it names.
pub fn watch(spaces: &PdSpaces, selector: u64) {
    if let Some(node) = spaces.objects.node(selector) {
        node.object().watched.set(Some(node));
    }
}

/// Finds the capability in `receiver` that the sender's one at `base` was derived from, directly
/// or not (or is, where both are the same domain): what the receiver is told, with those of the
/// rights asked for that the sender holds. All zeroes where the receiver has none.
///
/// # Errors
/// `BadParam` where the range is malformed or misaligned, `BadCap` where the sender does not hold
/// it in one piece.
pub fn translate(
    sender: &PdSpaces,
    receiver: &PdSpaces,
    range: Range,
    base: u64,
) -> Result<Item, Status> {
    let request = Request::new(range, base)?;
    let node = request.node(sender).ok_or(Status::BadCap)?;
    let target = node.target + (base - node.base);
    let mut at = Some(node);
    while let Some(ancestor) = at {
        if ancestor.is_owned_by(receiver) {
            let rights = node.rights() & range.rights();
            let range = Range::new(request.space, range.order(), rights).0;
            let base = ancestor.base + (target - ancestor.target);
            return Ok(Item { range, base, offset: node.badge(), badge: 0 });
        }
        at = ancestor.parent.get();
    }
    Ok(Item::default())
}
