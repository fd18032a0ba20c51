"""The forms that open a room and that speak to all of them."""

from django import forms
from django.utils.text import slugify

from chat.messages import MAX_TEXT_LENGTH
from chat.names import MAX_ROOM_LENGTH

__all__ = ["AnnouncementForm", "RoomForm"]


class RoomForm(forms.Form):
    """Asks for a room's name and turns it into what a URL can hold: ``Tea & cake`` is ``tea-cake``."""

    name = forms.CharField(
        label="Room",
        max_length=MAX_ROOM_LENGTH,
        widget=forms.TextInput(attrs={"placeholder": "tea-time", "autocomplete": "off"}),
    )

    def clean_name(self) -> str:
        """Return the name as it will be in the URL."""
        name: str = slugify(self.cleaned_data["name"])
        if not name:
            raise forms.ValidationError("A room's name needs a letter or a digit from A-Z, a-z, 0-9.")
        return name


class AnnouncementForm(forms.Form):
    """Asks for what all rooms shall hear."""

    text = forms.CharField(
        label="Announcement",
        max_length=MAX_TEXT_LENGTH,
        widget=forms.Textarea(attrs={"rows": 3, "placeholder": "The kettle is on in five minutes."}),
    )
