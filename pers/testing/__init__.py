"""A conformance kit: any backend can be held against the contract of pers.

In the test file of a backend::

    from pers.testing import conformance_suite
    from my_backend import MyDevice

    TestConformance = conformance_suite(MyDevice)

That runs the cases of WebGPU's conformance suite, and a short property test (`buffer_machine`),
which `explore` and ``python -m pers.testing explore`` run for as long as one likes.

Needs the extra ``test`` (``pip install "pers[test]"``).
"""

from pers.testing.case import Case, NotApplicable, all_cases
from pers.testing.explore import Exploration, explore
from pers.testing.property import buffer_machine
from pers.testing.report import CaseResult, ConformanceReport, run_conformance
from pers.testing.suite import conformance_suite

__all__ = [
    "Case",
    "CaseResult",
    "ConformanceReport",
    "Exploration",
    "NotApplicable",
    "all_cases",
    "buffer_machine",
    "conformance_suite",
    "explore",
    "run_conformance",
]
