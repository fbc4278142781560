"""What an unknown file is: encoding, separator, header, which column is which, what its times and numbers mean.

Recognising looks at the values, so its result is written down as a mapping before a site starts; a started site reads by the
mapping and never recognises.
"""

from common.data.recognising.recognition import AUTO, Recognised, recognise, said_of

__all__ = ["AUTO", "Recognised", "recognise", "said_of"]
