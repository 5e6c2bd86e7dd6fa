"""Documents the fields of options dataclasses in the API reference by the help texts of the command line."""

from __future__ import annotations

from dataclasses import MISSING
from importlib import import_module
from typing import Any

from griffe import Class, Docstring, Extension

from pocketbert.options import option_fields


class OptionFields(Extension):
    """Puts help texts and defaults of fields where mkdocstrings looks for descriptions and values."""

    def on_class_members(self, *, cls: Class, **_: Any) -> None:
        """Describe the fields of one class, if it is a dataclass with options."""
        if not cls.module.name.endswith(("options", "settings")):
            return
        dataclass = getattr(import_module(cls.module.path), cls.name)
        if not hasattr(dataclass, "__dataclass_fields__"):
            return
        for field, info in option_fields(dataclass):
            if (attribute := cls.attributes.get(field.name)) is not None:  # not inherited
                default = "" if info.default is None else f" [default: {info.default}]"
                attribute.docstring = Docstring(f"{info.help}{default}", parent=attribute)
                attribute.value = None if field.default is MISSING else repr(field.default)
