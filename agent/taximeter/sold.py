"""Under which tier a record is sold, and what it says of the devices: those declared, those seen, those shared.

Refuses to know how either is found out, and what a tier costs.
"""

from functools import lru_cache

from taximeter.billing.rates import RateCard
from taximeter.events import Observed, ServiceClass
from taximeter.hardware import evidence
from taximeter.hardware.inventory import UNKNOWN_TIER, Evidence, Hardware
from taximeter.instance import Instance, Prediction
from taximeter.records import DeviceUse, HardwareElsewhere, HardwareUse
from taximeter.rulebook import Rulebook
from taximeter.values import replace

_UNKNOWN_HARDWARE = Hardware(UNKNOWN_TIER, 0, rule="the hardware was not looked at", settled=False)


def billed_hardware(instance: Instance, prediction: Prediction | None, book: Rulebook) -> Hardware:
    """What a record's tier is: of the devices that were declared and those that were seen, what the rules say bills."""
    return _billed(instance, book.card_of(prediction.card if prediction else instance.card), book)


def billed_by(instance: Instance, card: str | None, book: Rulebook) -> Hardware:
    """The same by the rate card of that hash."""
    return _billed(instance, book.card_of(card), book)


def tiers(instance: Instance, book: Rulebook) -> tuple[str, ...]:
    """What an instance's tier is by each rate card that one of its predictions may have begun under."""
    return tuple([_billed(instance, card, book).tier for card in (None, *book.cards)])


def _billed(instance: Instance, card: RateCard | None, book: Rulebook) -> Hardware:
    declared, observed = instance.hardware or _UNKNOWN_HARDWARE, instance.observed
    if observed is None or observed.hardware is None:
        return declared
    choice = book.rules_of(instance.rules).on_mismatch
    return evidence.billed(declared, observed.hardware, instance.evidence, choice, card.tiers if card else {})


def as_published(use: HardwareUse, model: str | None, card: RateCard | None) -> HardwareUse:
    """The same; where the card publishes the model with another tier, it says so. What is unknown is no other tier."""
    priced = card.model(model) if card else None
    if priced is None or priced.hardware in (None, use.tier) or use.tier == UNKNOWN_TIER:
        return use
    seen = use.rule, use.declared, use.observed, use.shared, use.shared_devices
    return HardwareElsewhere(use.tier, use.count, use.devices, use.evidence, *seen, priced.hardware)


def boots_fast(card: RateCard | None, model: str | None, version: str | None, pool: str | None) -> bool:
    """Whether the card says of a version that it boots fast, and it runs on a pool (contracts, section 6)."""
    priced = card.model(model) if card is not None and pool is not None else None
    return priced is not None and version is not None and priced.versions.get(version, False)


def published_class(prediction: Prediction, card: RateCard | None) -> ServiceClass | None:
    """The class that the card publishes a prediction's version with; None where it is of that one, or of none."""
    if prediction.service_class is ServiceClass.FAST_BOOT:
        return None
    fast = boots_fast(card, prediction.model, prediction.version, prediction.pool)
    return ServiceClass.FAST_BOOT if fast else None


def hardware_use(instance: Instance, billed: Hardware) -> HardwareUse:
    """What a record says of the hardware, where this bills."""
    if instance.observed is None:
        return _use_of(billed)
    return _use_as_seen(billed, instance.hardware or _UNKNOWN_HARDWARE, instance.observed, instance.evidence)


@lru_cache(maxsize=256)
def _use_of(hardware: Hardware) -> HardwareUse:
    return _use(hardware, hardware.evidence, _named(hardware))


def _use_as_seen(billed: Hardware, declared: Hardware, observed: Observed, known: Evidence) -> HardwareUse:
    seen = observed.hardware.devices if observed.hardware else ()
    use = _use(billed, known, _named(declared))
    return replace(
        use,
        observed=tuple(device.uuid for device in seen),
        shared=bool(observed.shared),
        shared_devices=observed.shared,
    )


def _use(hardware: Hardware, known: Evidence, declared: tuple[str, ...]) -> HardwareUse:
    devices = tuple(DeviceUse(device.uuid, device.name, device.memory_bytes) for device in hardware.devices)
    return HardwareUse(hardware.tier, hardware.count, devices, known, hardware.rule, declared)


def _named(declared: Hardware) -> tuple[str, ...]:
    return tuple(device.uuid for device in declared.devices) if declared.settled else ()
