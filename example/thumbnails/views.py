"""The pages about thumbnails: plain synchronous views, which hand the work to a worker process and return."""

from __future__ import annotations

from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from thumbnails.forms import MAX_UPLOAD_BYTES, PictureForm
from thumbnails.messages import JobProgress, all_jobs, one_job, thumbnails_to_make
from thumbnails.models import INTERRUPTED_AFTER_S, Job, JobChangedError
from thumbnails.snapshots import latest_jobs

__all__ = ["job_list", "job_page", "run_again", "thumbnail"]


@require_http_methods(["GET", "POST"])
def job_list(request: HttpRequest) -> HttpResponse:
    """List the latest jobs; a posted picture becomes a new one."""
    form = PictureForm(request.POST, request.FILES) if request.method == "POST" else PictureForm()
    if form.is_valid():
        job = form.new_job()
        with transaction.atomic():
            job.save()
            _hand_over(job)
        return redirect("thumbnails:job", job=job.pk)
    context = {"form": form, "max_upload_bytes": MAX_UPLOAD_BYTES, "jobs": latest_jobs()}
    return render(request, "thumbnails/jobs.html", {**context, **_for_cards()})


@require_GET
def job_page(request: HttpRequest, job: int) -> HttpResponse:
    """Show one job."""
    found = get_object_or_404(Job, pk=job)
    context = {"job": found, "jobs": [found.as_message()]}
    return render(request, "thumbnails/job.html", {**context, **_for_cards()})


@require_POST
def run_again(request: HttpRequest, job: int) -> HttpResponse:
    """Start a job from its beginning if it has made no progress for a while."""
    found = get_object_or_404(Job, pk=job)
    if found.may_run_again:
        try:
            with transaction.atomic():
                found.reset()
                _hand_over(found)
        except JobChangedError:
            pass  # The worker lives, or somebody else pressed the button a moment earlier.
    return redirect("thumbnails:job", job=job)


@require_GET
def thumbnail(request: HttpRequest, job: int, size: int) -> HttpResponse:
    """Send a finished thumbnail. The picture itself is never sent: what strangers upload is not handed out as it is."""
    found = get_object_or_404(Job, pk=job)
    if size not in found.sizes:
        raise Http404("no such size")
    try:
        return HttpResponse(found.path_of(size).read_bytes(), content_type="image/webp")
    except FileNotFoundError as error:
        raise Http404("not made yet") from error


def _hand_over(job: Job) -> None:
    """Give the job to a worker and show it to the pages, once the transaction commits; never if it rolls back."""
    thumbnails_to_make.send_on_commit({"type": "thumbnails.make", "job": job.pk, "revision": job.revision})
    progress: JobProgress = {"type": "job.progress", "job": job.as_message()}
    all_jobs.send_on_commit(progress)
    one_job(job.pk).send_on_commit(progress)


def _for_cards() -> dict[str, object]:
    """Return what the scripts of both pages need to know."""
    return {"interrupted_after_s": INTERRUPTED_AFTER_S}
